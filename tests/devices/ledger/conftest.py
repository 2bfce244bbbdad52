"""Ledgers of devices, and the processes that share them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import ledger_process
import psutil
import pytest


class LedgerProcess:
    """A ledger_process in another process; *wrap* is a command that runs it, such as unshare."""

    def __init__(self, *arguments: object, wrap: tuple[str, ...] = ()) -> None:
        command = [*wrap, sys.executable, ledger_process.__file__, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        self.offspring = []

    def hear(self, word):
        """The number in the line that begins with *word*, which must be the next one."""
        said = self.process.stdout.readline().split()
        assert said[:1] == [word], said
        if word == "child":
            with contextlib.suppress(psutil.NoSuchProcess):
                self.offspring.append(psutil.Process(int(said[1])))
        return int(said[1]) if len(said) > 1 else None

    def tell(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        self.kill()
        for child in self.offspring:
            with contextlib.suppress(psutil.NoSuchProcess):  # nor another that has its number by now
                child.kill()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def ledger_file(tmp_path) -> Path:
    """Where the ledger lies; it is not made yet."""
    return tmp_path / "ledgers" / "gpu"


@pytest.fixture
def open_ledger(ledger_file):
    """Opens the ledger, as often as wished; all are closed at the end."""
    with contextlib.ExitStack() as stack:

        def open_one(*, patience=30.0):
            ledger = ledger_process.opened(ledger_file, patience=patience)
            stack.callback(ledger.close)
            return ledger

        yield open_one


@pytest.fixture
def start(ledger_file):
    """Starts a process that does a verb of ledger_process with the ledger."""
    with contextlib.ExitStack() as stack:

        def start_one(verb, *arguments, wrap=()):
            process = LedgerProcess(verb, ledger_file, *arguments, wrap=wrap)
            stack.callback(process.close)
            return process

        yield start_one
