"""A project with one worker, as a process, and clouds that run our doors as processes of their own."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.presence import workers_of
from processes import environment, run_in

#: "sleep 2" sleeps; "say 100" answers with so many letters; everything else is shouted.
CLERK = """
import time

class Clerk:
    def __call__(self, text: str) -> str:
        word, _, number = text.partition(" ")
        if word == "sleep":
            time.sleep(float(number))
        if word == "say":
            return "x" * int(number)
        return text.upper()
"""
CLOUDS = Path(__file__).parent


class Shop:
    """A project's folder, in which a worker serves the model ``clerk``, and an API key. *variables* are for all."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.variables = variables
        (folder / "clerk.py").write_text(CLERK)
        made = run_in(folder, "keys", "create", "--json", **variables)
        self.key: str = json.loads(made.stdout)["token"]
        self.log = (folder / "worker.log").open("wb")
        command = [sys.executable, "-m", "dumbwaiter", "worker", "clerk:Clerk"]
        self.worker = subprocess.Popen(
            command, cwd=folder, env=environment(**variables), stdout=self.log, stderr=subprocess.STDOUT
        )

    def wait_ready(self, within: float = 40.0) -> None:
        store = open_store(f"file://{self.folder}/.dumbwaiter/blobs")
        give_up_at = time.monotonic() + within
        while not any(one.state == "ready" for one in asyncio.run(workers_of(store, "clerk"))):
            assert time.monotonic() < give_up_at, (self.folder / "worker.log").read_text()
            assert self.worker.poll() is None, (self.folder / "worker.log").read_text()
            time.sleep(0.05)

    def close(self) -> None:
        self.worker.send_signal(signal.SIGTERM)
        try:
            self.worker.wait(timeout=40)
        finally:
            self.worker.kill()
            self.log.close()


class Cloud:
    """A process that imports our door as its cloud does, and takes one request after the other from a pipe."""

    def __init__(self, folder: Path, script: str, *arguments: str, **variables: str) -> None:
        self.log_file = folder / f"{script}-{time.monotonic_ns()}.log"
        self.log = self.log_file.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, str(CLOUDS / script), *arguments],
            cwd=folder,
            env=environment(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
        )

    def invoke(self, *requests: Any) -> Any:
        """What comes back for *requests*, all of them at once where the cloud does so."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(requests[0] if len(requests) == 1 else requests).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.log_file.read_text()
        return json.loads(line)

    def said(self) -> str:
        return self.log_file.read_text()

    def close(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            return self.process.wait(timeout=20)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.log.close()


def text_of(answer: dict[str, Any]) -> str:
    body = answer.get("body", "")
    return base64.b64decode(body).decode() if answer.get("isBase64Encoded") else body
