"""Images that are really built and containers that really run, by buildah and podman, in a store of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE = "localhost/debian-python:12"
IMAGE = "localhost/kitchen:1"
#: What containers get that have to be content with little.
CONFINED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
#: In a container like this machine's own a process may not raise its limits, and podman wants to.
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")

NETWORK = """
import os
import time


class Kitchen:
    def __call__(self, text: str) -> str:
        if os.environ.get("KITCHEN") == "small" and text == "hog":
            return str(len(b"x" * 1024**3))
        if os.environ.get("KITCHEN") == "small" and text == "fill":
            # As if nobody had said that the runner is to go first; and what is in memory here outlives it.
            with open("/proc/self/oom_score_adj", "w") as mine:
                mine.write("0")
            with open("/tmp/rubbish", "wb") as file:
                for _ in range(1024):
                    file.write(bytes(1024 * 1024))
        if text.startswith("wait "):
            time.sleep(float(text.removeprefix("wait ")))
        return text.upper()
"""
SETTINGS = """
broker = "redis://redis.example.com"
lock_duration = "5s"

[models.kitchen]
target = "network:Kitchen"
max_deliveries = 4
device = "none"
"""


def base_image():
    """The archive that make test-image makes. Skips where it is not there."""
    base = os.environ.get("IMAGE_BASE")
    if not base or not all(map(shutil.which, ("buildah", "podman", "runc"))):
        pytest.skip("RULE NOT CHECKED: images are built by: make test-image")
    return Path(base)


class Machine:
    """Builds and runs in *folder*. What runs still when it is closed is killed, and nothing is left there."""

    def __init__(self, folder):
        self.folder = folder
        self._store = self._stored("overlay")
        if self.podman("info", check=False).returncode:
            self._store = self._stored("vfs")  # a copy of everything for each container
        self._runs = []

    def _stored(self, driver):
        folder = self.folder / driver
        return ("--root", str(folder / "store"), "--runroot", str(folder / "run"), "--storage-driver", driver)

    def build(self, context, tag, *options):
        command = ("buildah", *self._store, "bud", "--isolation", "chroot", "--format", "docker", "--tag", tag)
        _run(*command, *options, str(context))

    def podman(self, *arguments, check=True, **options):
        """Standard output of one command, or with check=False all of how it went."""
        # The default runtime does not know the cgroups of every machine; this one does.
        command = ("podman", *self._store, "--runtime", "runc", "--cgroup-manager", "cgroupfs", *arguments)
        # Podman's monitor leaves a file named oom in the current folder when the kernel kills.
        done = _run(*command, cwd=self.folder, check=check, **options)
        return done.stdout.strip() if check else done

    def start(self, *command, options=()):
        """A container of the project's image, confined, on this machine's network."""
        known = ("run", "--detach", "--network", "host", *LIMITS, *CONFINED, *options, IMAGE, *command)
        container = self.podman(*known)
        self._runs.append(container)
        return container

    def stop(self, container, within):
        """SIGTERM, and the exit code."""
        self.podman("stop", "--time", str(within), container, timeout=within + 60)
        return self.exit_code(container)

    def exit_code(self, container):
        return int(self.podman("wait", container, timeout=120))

    def is_ready(self, container):
        return self.podman("exec", container, "dumbwaiter", "probe", "ready", check=False).returncode == 0

    def runs(self, container):
        return self.podman("inspect", container, "--format", "{{.State.Running}}") == "true"

    def logs(self, container):
        done = self.podman("logs", container, check=False)
        return done.stdout + done.stderr

    def close(self):
        for container in self._runs:
            with contextlib.suppress(subprocess.SubprocessError):
                self.podman("rm", "--force", "--volumes", container, check=False)
        # Each of the two tools has mounted it, and leaves it so.
        left = self.folder / "overlay" / "store" / "overlay"
        while left.is_mount() and not _run("umount", str(left), check=False).returncode:
            pass
        shutil.rmtree(self.folder, ignore_errors=True)


def rendered_project(folder):
    """A project with its Dockerfile, and all wheels that it is built from: nothing is fetched while it is built."""
    folder.mkdir()
    (folder / "network.py").write_text(NETWORK)
    (folder / "dumbwaiter.toml").write_text(SETTINGS)
    (folder / "requirements.txt").write_text("")
    python = (sys.executable, "-m")
    _run(*python, "dumbwaiter", "deploy", "image", cwd=folder)
    wheels = folder / "image" / "wheels"
    _run(*python, "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(ROOT), cwd=folder)
    pins = (folder / "image" / "requirements.txt").read_text().splitlines()
    # Debian's Python is older than what the pins were made with, and wants one more.
    wanted = [*(pin for pin in pins if "==" in pin and not pin.startswith("dumbwaiter")), "async-timeout>=4"]
    version = ("--python-version", "3.11", "--only-binary", ":all:")
    _run(*python, "pip", "download", "--quiet", "--no-deps", *version, "--dest", str(wheels), *wanted, cwd=folder)
    return folder


def _run(*command, cwd=None, check=True, timeout=600):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done
