"""A server as a process of this machine: what all kinds do alike."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from dumbwaiter.errors import DumbwaiterError

HOST = "127.0.0.1"
START_SECONDS = 20.0
_EVERY_SECONDS = 0.01
_LOG_CHARACTERS = 2000


class MissingServerError(DumbwaiterError):
    """The program *name* is not on this machine; *remedy* is the command that installs it.

    *is_in_an_index*: of PyPI, Debian or npm, so that a machine where everything must be there can have it.
    """

    def __init__(self, name: str, remedy: str, *, is_in_an_index: bool = True) -> None:
        self.name = name
        self.remedy = remedy
        self.is_in_an_index = is_in_an_index
        super().__init__(f"{name} is missing: {remedy}")


class ServerStartError(DumbwaiterError):
    """The server *name* ended, or did not answer in time; *log* is the end of what it said."""

    def __init__(self, name: str, log: str) -> None:
        self.name = name
        self.log = log
        super().__init__(f"{name} did not come up; it said: {log or 'nothing'}")


def free_port() -> int:
    """A port of the loopback interface on which nobody listens now."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        port: int = one.getsockname()[1]
    return port


def made(folder: Path) -> Path:
    """Absolute: the servers run in that folder, and read its name in their own settings too."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


class LocalServer(ABC):
    """A program that listens on *port*, and keeps its port and its data when it is started again.

    *url* is the broker's. *client_environment* is what its clients need in their environment.
    """

    url: str
    keeps_data = True
    """Whether it has its data still when it is started again."""
    client_environment: Mapping[str, str] = MappingProxyType({})
    start_seconds = START_SECONDS

    def __init__(self, command: Sequence[str], port: int, log: Path) -> None:
        self.port = port
        self.log = log
        self._command = tuple(command)
        self._environment: Mapping[str, str] = os.environ
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def program(self) -> str:
        """The path of what runs."""
        return self._command[0]

    def start(self) -> None:
        """Return when it answers. Raises ServerStartError, and leaves nothing running then."""
        self._process = self._spawn(self._command)
        give_up_at = time.monotonic() + self.start_seconds
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                self.stop()
                said = self.log.read_text(errors="replace") if self.log.exists() else ""
                raise ServerStartError(Path(self.program).name, said[-_LOG_CHARACTERS:])
            time.sleep(_EVERY_SECONDS)

    def stop(self) -> None:
        """Kill -9; return when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self, signal: int) -> None:
        """Send it *signal*, such as SIGSTOP."""
        assert self._process is not None, "it is not running"
        self._process.send_signal(signal)

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it can be used now."""

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            # In a group of its own: a Ctrl-C at the terminal is for whoever started it, who stops it last.
            return subprocess.Popen(  # noqa: S603 - the programs are ours to choose
                command,
                # Erlang leaves the dump of a crash where it stands.
                cwd=self.log.parent,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def _said(self, request: bytes) -> bytes:
        """The beginning of its answer to *request*, or nothing while it does not listen."""
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1.0) as one:
            one.sendall(request)
            return one.recv(100)
        return b""


def program_beside(name: str, package: str) -> str:
    """The program that the Python *package* brings. Raises MissingServerError."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join((beside, os.environ.get("PATH", ""))))
    if found is None:
        raise MissingServerError(name, f"pip install '{package}'")
    return found
