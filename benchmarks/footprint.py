"""Memory of the long-lived processes, and how long `import dumbwaiter` takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil

HERE = Path(__file__).parent
_IMPORT = "import time; t = time.perf_counter(); import dumbwaiter; print((time.perf_counter() - t) * 1e3)"


def measure(add: Callable[[str, float], None]) -> None:
    """Serve the echo model with real processes, send 200 requests by REST, read their resident memory."""
    for _ in range(5):
        printed = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True)
        add("import ms", float(printed.stdout))
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "DUMBWAITER_BROKER": f"sqlite:///{folder}/queue.db",
            "DUMBWAITER_BLOBS": f"file://{folder}/blobs",
        }
        serve = _start(["worker", "echo=models:Echo"], environment)
        gateway = _start(["gateway", "--port", "0"], environment, stderr=subprocess.PIPE)
        try:
            address = _address(gateway)
            for _ in range(200):
                _post(f"{address}/v1/models/echo/predictions", b"x" * 1024)
            add("gateway MB", psutil.Process(gateway.pid).memory_info().rss / 1e6)
            add("consumer MB", psutil.Process(serve.pid).memory_info().rss / 1e6)
        finally:
            for process in (gateway, serve):
                process.terminate()
                process.wait()


def _start(
    arguments: list[str], environment: dict[str, str], stderr: int = subprocess.DEVNULL
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dumbwaiter", *arguments]
    return subprocess.Popen(command, cwd=HERE, env=environment, stdout=subprocess.DEVNULL, stderr=stderr, text=True)


def _address(gateway: subprocess.Popen[str]) -> str:
    if gateway.stderr is None:
        raise AssertionError("the gateway's log is needed for its address")
    for line in gateway.stderr:
        found = re.search(r"http://[\d.]+:\d+", line)
        if found:
            return found.group()
    raise RuntimeError("the gateway ended without telling its address")


def _post(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/octet-stream"})
    give_up_at = time.monotonic() + 30.0
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            if error.code != 404 or time.monotonic() > give_up_at:
                raise
            time.sleep(0.05)  # the worker has not declared its queue yet
        else:
            return
