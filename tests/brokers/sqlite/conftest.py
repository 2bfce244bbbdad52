"""An SQLite broker in a fresh folder, and processes that share its file."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from dumbwaiter.brokers.sqlite import SqliteBroker

SCRIPT = Path(__file__).with_name("sqlite_process.py")


class Child:
    """A running sqlite_process.py."""

    def __init__(self, verb: str, *arguments: str) -> None:
        self.process = subprocess.Popen([sys.executable, str(SCRIPT), verb, *arguments], stdout=subprocess.PIPE)

    def line(self) -> list[str]:
        """The next line that it says, in words."""
        return self.process.stdout.readline().decode().split()

    def kill(self) -> list[list[str]]:
        """kill -9; the rest of what it said."""
        self.process.kill()
        rest = self.process.stdout.read().decode()
        self.process.wait()
        # A line that was cut by the kill was not said.
        return [line.split() for line in rest.splitlines(keepends=True) if line.endswith("\n")]

    def end(self) -> list[list[str]]:
        """Wait until it ends by itself; all that it said."""
        out, _ = self.process.communicate(timeout=50)
        return [line.split() for line in out.decode().splitlines()]

    def cpu_seconds(self) -> float:
        import psutil

        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system


@pytest.fixture
def url(tmp_path):
    return f"sqlite://{tmp_path}/queue.db"


@pytest.fixture
def tmp_path():
    """A folder of a short name: the path of a Unix socket has 107 characters at most."""
    with tempfile.TemporaryDirectory(prefix="dw-") as folder:
        yield Path(folder)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "queue.db"


@pytest.fixture
async def broker(url):
    async with SqliteBroker(url) as broker:
        await broker.create_queue("q")
        yield broker


@pytest.fixture
def child():
    """Start processes; they are killed after the test."""
    children = []

    def start(verb: str, *arguments: str) -> Child:
        children.append(Child(verb, *arguments))
        return children[-1]

    yield start
    for one in children:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        one.process.stdout.close()


@pytest.fixture
def another_process():
    """A context in which os.getpid() is that of a forked child, as far as the broker can tell."""

    @contextmanager
    def forked():
        real = os.getpid
        os.getpid = lambda: real() + 1
        try:
            yield
        finally:
            os.getpid = real

    return forked
