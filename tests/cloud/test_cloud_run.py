"""Both ways to be a Cloud Run service: a foreign server with our application, and our own command. Each on $PORT."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
from cloud_running import Shop

from processes import environment

# Servers and processes start first.
pytestmark = pytest.mark.timeout(180)

UVICORN = f"{sys.executable} -m uvicorn dumbwaiter.cloud.cloud_run:app --host 0.0.0.0 --port $PORT --log-level warning"
OURS = f"{sys.executable} -m dumbwaiter gateway --host 0.0.0.0 --port $PORT --grace 8s"
WAYS = pytest.mark.parametrize("command", [UVICORN, OURS], ids=["uvicorn", "ours"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def service(folder: Path, command: str, **variables: str) -> Generator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    port = free_port()
    log_file = folder / f"service-{port}.log"
    with log_file.open("wb") as log:
        # The shell is replaced, so that the signals reach whoever serves.
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            cwd=folder,
            env=environment(PORT=str(port), **variables),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=40.0) as http:
            give_up_at = time.monotonic() + 40.0
            while process.poll() is None and time.monotonic() < give_up_at:
                with contextlib.suppress(httpx.TransportError):
                    if http.get("/v2/health/ready").status_code == 200:
                        break
                time.sleep(0.05)
            yield process, http
    finally:
        process.kill()
        process.wait()
        sys.stderr.write(log_file.read_text())


@WAYS
def test_it_serves_on_the_port_that_it_is_told_and_ends_well(shop: Shop, command: str) -> None:
    with service(shop.folder, command) as (process, http):
        key = {"authorization": f"Bearer {shop.key}"}
        answer = http.post("/v1/models/clerk/predictions", json={"input": "hello"}, headers=key)
        assert (answer.status_code, answer.json()["output"]) == (200, "HELLO")
        accepted = http.post(
            "/v1/models/clerk/predictions", json={"input": "later"}, headers={**key, "prefer": "respond-async"}
        )
        assert accepted.status_code == 202
        shown = http.get(accepted.headers["location"], headers={**key, "prefer": "wait=20"})
        assert shown.json()["output"] == "LATER"
        assert http.post("/v1/models/clerk/predictions", json={"input": "x"}).status_code == 401
        process.send_signal(signal.SIGTERM)
        # uvicorn raises the signal anew when it has ended well.
        assert process.wait(timeout=10.0) in {0, -signal.SIGTERM}


@WAYS
def test_a_service_without_keys_does_not_start_and_says_why(command: str, tmp_path: Path) -> None:
    with service(tmp_path, command) as (process, _):
        assert process.wait(timeout=5.0) not in {0, None}
    (log,) = tmp_path.glob("service-*.log")
    assert "dumbwaiter keys create" in log.read_text()


def test_in_the_cloud_a_broker_that_is_a_file_is_refused_by_the_application(shop: Shop) -> None:
    with service(shop.folder, UVICORN, K_SERVICE="gateway") as (process, _):
        assert process.wait(timeout=5.0) not in {0, None}
