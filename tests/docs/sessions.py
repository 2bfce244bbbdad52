"""Runs a page of the documentation as its reader would: writes its files, types its commands, compares the output.

A ``console`` block is a terminal: lines that start with ``$ `` are commands, the lines after them their output, in
which ``…`` stands for anything. A file is named in the line before its block: "Write `shout.py`:". ``dumbwaiter serve``
runs until the next one starts. A block after ``<!-- not run: reason -->`` is not run.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dumbwaiter.testing import eventually

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PORT = "8080"
_BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
_FILE = re.compile(r"`([\w./-]+\.(?:py|toml|txt))`.*:$")
#: These only look, so that they may be asked again until what they look at has happened.
_LOOKS = ("dumbwaiter queues", "dumbwaiter dead-letters list", "curl -s http")


class Block(NamedTuple):
    before: str
    language: str
    text: str

    @property
    def is_run(self) -> bool:
        return not self.before.startswith("<!-- not run:")

    @property
    def file(self) -> str | None:
        found = _FILE.search(self.before)
        return found[1] if found else None


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of *page*, each with the line before it; of these *languages*, if any are named."""
    found = [Block(*match.groups()) for match in _BLOCK.finditer(page.read_text())]
    return [block for block in found if not languages or block.language in languages]


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Command and expected output, for each command of a ``console`` block."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.split("\n")
        count = 1 + next(number for number, line in enumerate(lines) if not line.endswith("\\"))
        yield "\n".join(lines[:count]), "\n".join(lines[count:])


def says(expected: str, output: str, *, may_go_on: bool = False) -> bool:
    """Whether *output* is what the page shows, up to white space at the ends of lines."""
    shown, said = (re.sub(r"[ \t\r]+$", "", text.strip(), flags=re.MULTILINE) for text in (expected, output))
    pattern = ".*?".join(re.escape(part) for part in shown.split("…")) + (".*" if may_go_on else "")
    return re.fullmatch(pattern, said, re.DOTALL) is not None


class Reader:
    """A reader in *folder*. Commands run in bash; the port of the pages is replaced by a free one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._port = _free_port()
        self._serving: subprocess.Popen[bytes] | None = None
        self._log = folder.parent / "serve.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DUMBWAITER_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**kept, "PATH": path, "NO_COLOR": "1", "DUMBWAITER_GATEWAY__PORT": self._port}

    def follow(self, page: Path) -> int:
        """Do all that *page* says; how many commands that were."""
        count = 0
        for block in blocks(page):
            if block.is_run and block.file is not None:
                self.write(block.file, block.text.replace(PORT, self._port))
            elif block.is_run and block.language == "console":
                for command, expected in steps(block.text):
                    self.type(command, expected)
                    count += 1
        return count

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def type(self, command: str, expected: str) -> None:
        command, expected = (text.replace(PORT, self._port) for text in (command, expected))
        if command.startswith("dumbwaiter serve"):
            self._serve(command, expected)
            return
        within = 20.0 if command.startswith(_LOOKS) else 0.0
        asyncio.run(eventually(lambda: self._says(command, expected), within=within, what=f"what `{command}` shows"))

    def log(self) -> str:
        """What the present ``dumbwaiter serve`` has written."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def stop(self) -> None:
        """Ctrl-C for ``dumbwaiter serve``, if there is one."""
        if self._serving is not None:
            serving, self._serving = self._serving, None
            serving.send_signal(signal.SIGINT)
            try:
                assert serving.wait(timeout=30) == 0, self.log()
            finally:
                serving.kill()

    def _says(self, command: str, expected: str) -> bool:
        output = self._run(command)
        assert says(expected, output), f"\n--- the page\n{expected}\n--- the command\n{output}\n{self.log()}"
        return True

    def _run(self, command: str) -> str:
        ran = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=50,
            check=False,
        )
        return ran.stdout.decode()

    def _serve(self, command: str, expected: str) -> None:
        self.stop()
        with self._log.open("wb") as log:
            self._serving = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        what = f"what `{command}` shows"
        asyncio.run(eventually(lambda: self._announces(expected), within=30.0, every=0.05, what=what))
        assert self._serving.poll() is None, self.log()

    def _announces(self, expected: str) -> bool:
        if self._serving is not None and self._serving.poll() is None:
            assert says(expected, self.log(), may_go_on=True), f"\n--- the page\n{expected}\n--- said\n{self.log()}"
        return True


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
