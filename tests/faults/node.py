"""One machine's processes over one SQLite file: workers and gateways as users start them, killed with the test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

LOCK = 2.0
MODEL = """
import time

class Model:
    max_batch = 8

    def __call__(self, texts: list[str]) -> list[str]:
        time.sleep(0.02)
        return [text.upper() for text in texts]
"""


class Node:
    """A folder with a model, and what runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker_url = f"sqlite:///{folder}/queue.db"
        self.store_url = f"file://{folder}/blobs"
        self._processes: list[subprocess.Popen[bytes]] = []
        self.write_model(MODEL)

    def write_model(self, code: str) -> None:
        (self.folder / "network.py").write_text(textwrap.dedent(code))

    def worker(self, *, before_start: Callable[[], None] | None = None, **variables: str) -> subprocess.Popen[bytes]:
        """A worker of network.Model on the queue ``model``; *before_start* runs in its process."""
        return self._start(["worker", "model=network:Model"], variables, preexec_fn=before_start)

    def gateway(self, port: int = 0) -> tuple[subprocess.Popen[bytes], int]:
        """A gateway that listens already, and its port."""
        readable, writable = os.pipe()
        arguments = ["gateway", "--port", str(port), "--status-fd", str(writable)]
        process = self._start(arguments, {}, pass_fds=(writable,))
        os.close(writable)
        with os.fdopen(readable) as reports:
            for line in reports:
                report = json.loads(line)
                if report["state"] == "ready":
                    return process, int(report["address"].rpartition(":")[2])
        raise AssertionError("the gateway ended before it was ready")

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()

    def _start(self, arguments: list[str], variables: dict[str, str], **settings: object) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "DUMBWAITER_BROKER": self.broker_url,
            "DUMBWAITER_BLOBS": self.store_url,
            "DUMBWAITER_LOCK_DURATION": str(LOCK),
            **variables,
        }
        command = [sys.executable, "-m", "dumbwaiter", *arguments]
        process = subprocess.Popen(command, cwd=self.folder, env=environment, **settings)
        self._processes.append(process)
        return process
