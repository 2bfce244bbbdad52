"""A project folder with light models, the command line as a real process, and `serve` running in it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time

import pytest

MODELS = '''
import time


class Shout:
    """One text at a time."""

    def __call__(self, text: str) -> str:
        if text == "wrong":
            raise ValueError("this text is wrong")
        return text.upper()


class Add:
    def __call__(self, numbers: dict) -> float:
        return sum(numbers.values())


class Slow:
    def __call__(self, text: str) -> str:
        time.sleep(float(text))
        return text


class Broken:
    def __init__(self):
        raise RuntimeError("no weights in this house")

    def __call__(self, text: str) -> str:
        return text
'''


@pytest.fixture
def project(tmp_path):
    (tmp_path / "light.py").write_text(MODELS)
    return tmp_path


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DUMBWAITER_")}
    return {**kept, "NO_COLOR": "1", "COLUMNS": "200", **more}


@pytest.fixture
def run(project):
    """Run one command to its end: run("queues", "--json").returncode / .stdout / .stderr."""

    def run_command(*arguments, stdin=b"", **variables):
        command = [sys.executable, "-m", "dumbwaiter", *arguments]
        streams = {"input": stdin, "capture_output": True}
        done = subprocess.run(command, cwd=project, env=environment(**variables), timeout=50, check=False, **streams)
        done.stdout, done.stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        return done

    return run_command


class Serving:
    """`dumbwaiter serve --json` in a project; its events come in by a thread."""

    def __init__(self, project, arguments, variables):
        command = [sys.executable, "-m", "dumbwaiter", "serve", *arguments, "--port", "0", "--json"]
        self.log = (project / "serve.log").open("ab")
        self.process = subprocess.Popen(
            command, cwd=project, env=environment(**variables), stdout=subprocess.PIPE, stderr=self.log
        )
        self.log_file = project / "serve.log"
        self._events = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def event(self, kind, within=30.0, **facts):
        """The next event of this kind with these facts; earlier others are passed over."""
        give_up_at = time.monotonic() + within
        while True:
            try:
                event = self._events.get(timeout=max(0.0, give_up_at - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {kind} {facts} within {within} s\n{self.log_file.read_text()}") from None
            assert event is not None, f"serve ended before {kind} {facts}\n{self.log_file.read_text()}"
            if event["event"] == kind and all(event.get(name) == value for name, value in facts.items()):
                return event

    def stop(self, number=signal.SIGTERM, within=40.0):
        """Send *number* and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=within)

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=20)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


@pytest.fixture
def serve(project):
    """Start `dumbwaiter serve ARGUMENTS`; whatever a test leaves running is stopped."""
    running = []

    def start(*arguments, **variables):
        running.append(Serving(project, arguments, variables))
        return running[-1]

    yield start
    for serving in running:
        serving.close()
