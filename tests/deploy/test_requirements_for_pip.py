"""What is rendered of a project's requirements, pip takes: it really reads what the Dockerfile puts before it."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from functools import partial

import pytest

from processes import run_in

WHEEL = "spoon-1.0-py3-none-any.whl"


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "kitchen"
    folder.mkdir()
    (folder / "light.py").write_text("class Add: ...\n")
    (folder / "dumbwaiter.toml").write_text('broker = "redis://redis"\n[models.add]\ntarget = "light:Add"\n')
    return folder


@contextmanager
def index(folder):
    """The URL at which the files of *folder* are."""
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def wheel(path):
    info = "spoon-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("spoon.py", "")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: spoon\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


def installed(project, build):
    """What pip says of each file that the Dockerfile of *project* installs from, once it has copied them to *build*."""
    rendered = run_in(project, "deploy", "image")
    assert rendered.returncode == 0, rendered.stderr
    said = []
    for line in (project / "image/Dockerfile").read_text().partition("AS project")[0].splitlines():
        if line.startswith("COPY"):
            *sources, place = json.loads(line.removeprefix("COPY "))
            for source in (one for one in sources if not one.endswith("/")):
                target = build / (place + source if place.endswith("/") else place).removeprefix("/build/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(project / source, target)
        elif "--requirement" in line:
            said.append(pip(build / line.split("/build/")[1].split()[0]))
    return "".join(said)


def pip(file):
    """It finds here already what is pinned, and asks no index."""
    words = ("install", "--dry-run", "--no-index", "--disable-pip-version-check", "--requirement", str(file))
    ran = subprocess.run(
        [sys.executable, "-m", "pip", *words], capture_output=True, text=True, timeout=50, check=False, cwd="/"
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_url_in_pyproject(project, tmp_path):
    with index(tmp_path / "index") as url:
        wheel(tmp_path / "index" / WHEEL)
        (project / "pyproject.toml").write_text(
            f"[project]\nname = 'kitchen'\nversion = '1'\ndependencies = ['rich', 'spoon @ {url}/{WHEEL}']\n"
        )
        said = installed(project, tmp_path / "build")
    assert "Would install spoon-1.0" in said
    assert "Requirement already satisfied: rich==" in said


def test_files_that_requirements_name(project, tmp_path):
    (project / "requirements.txt").write_text("-r packages/base.txt\n")
    (project / "packages").mkdir()
    (project / "packages/base.txt").write_text("rich\n-c ../bounds.txt\n")
    (project / "bounds.txt").write_text("rich > 1\n")
    said = installed(project, tmp_path / "build")
    assert "Requirement already satisfied: rich" in said
