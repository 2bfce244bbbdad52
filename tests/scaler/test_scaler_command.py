"""`dumbwaiter scaler` as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import time

import grpc
import httpx
import pytest
from keda_client import Keda

from dumbwaiter.brokers import open_broker
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually
from processes import environment, make_project, run_in

pytestmark = pytest.mark.anyio
READY = re.compile(rb"^listening on 127\.0\.0\.1:(\d+) \(gRPC\) and http://127\.0\.0\.1:(\d+)$", re.MULTILINE)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "dumbwaiter.toml").write_text('[models.shout]\ntarget = "light:Shout"\n')
    return make_project(tmp_path)


@contextlib.contextmanager
def scaler(project, *arguments):
    command = [sys.executable, "-m", "dumbwaiter", "scaler", "--grpc-port", "0", "--http-port", "0", *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, cwd=project, env=environment(), **streams)
    try:
        said = b""
        while not (ready := READY.search(said)):
            line = process.stdout.readline()
            assert line, said
            said += line
        yield process, int(ready[1]), int(ready[2])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_at_once_with_0_and_its_streams_without_an_error(project, number):
    with scaler(project) as (process, grpc_port, http_port):
        async with Keda(grpc_port) as keda, open_broker(f"sqlite:{project}/.dumbwaiter/queue.db") as broker:
            await broker.create_queue("shout")
            async with keda.following(model="shout") as stream:
                await stream.next_is(False)
                await broker.send("shout", [Message(body=b"x")])
                await stream.next_is(True)
                async with httpx.AsyncClient(trust_env=False) as client:
                    url = f"http://127.0.0.1:{http_port}/v1/scale/shout"
                    assert (await client.get(url)).json()["desired"] == 1
                    began = time.monotonic()
                    process.send_signal(number)
                    await stream.end()
                    assert await asyncio.to_thread(process.wait, 20) == 0
        assert stream.ended is grpc.StatusCode.OK
        assert time.monotonic() - began < 5.0
        assert b"Traceback" not in process.stdout.read()


async def test_a_real_worker_is_seen_and_its_work_is_measured(project):
    command = [sys.executable, "-m", "dumbwaiter", "worker", "shout"]
    worker = await asyncio.create_subprocess_exec(*command, cwd=project, env=environment())
    try:
        with scaler(project) as (_, grpc_port, http_port):
            async with Keda(grpc_port) as keda, httpx.AsyncClient(trust_env=False) as client:
                url = f"http://127.0.0.1:{http_port}/v1/scale/shout"
                await eventually(lambda: facts(client, url, ready=1, starting=0, desired=1, active=False))
                async with keda.following(model="shout", look_every="50ms") as stream:
                    await stream.next_is(False)
                    done = await asyncio.to_thread(run_in, project, "submit", "shout", "--text", "two eggs")
                    assert done.stdout.strip() == "TWO EGGS"
                    await stream.next_is(False)
    finally:
        worker.terminate()
        await worker.wait()


async def facts(client, url, **wanted):
    told = (await client.get(url)).json()
    return {name: told.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("flag", ["--grpc-port", "--http-port"])
def test_a_port_in_use_is_told_with_the_way_out(project, flag):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        others = {"--grpc-port": "0", "--http-port": "0", flag: str(port)}
        done = run_in(project, "scaler", *(part for pair in others.items() for part in pair))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"dumbwaiter: error: port {port} on 127.0.0.1 is in use; choose another with {flag} N, "
        f"or any free one with {flag} 0\n"
    )


def test_both_doors_cannot_have_one_port(project):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    done = run_in(project, "scaler", "--grpc-port", port, "--http-port", port)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"gRPC and HTTP cannot both have port {port}" in done.stderr


def test_a_host_of_another_machine_is_refused_by_its_setting(project):
    done = run_in(project, "scaler", "--host", "no.such.host.invalid")
    assert done.returncode == 2
    assert "scaler.host 'no.such.host.invalid' is no address of this machine" in done.stderr


def test_a_broker_within_another_process_is_refused(project):
    done = run_in(project, "scaler", "--broker", "memory:", "--grpc-port", "0", "--http-port", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert "memory: lives within one process; no scaler can look into it; take another --broker" in done.stderr


@pytest.mark.parametrize(("package", "distribution"), [("grpc", "grpcio"), ("google", "protobuf")])
def test_without_its_extra_it_names_it(project, package, distribution):
    program = f"import sys; sys.modules[{package!r}] = None; from dumbwaiter.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "scaler", "--grpc-port", "0", "--http-port", "0"]
    done = subprocess.run(command, cwd=project, env=environment(), capture_output=True, timeout=50, check=False)
    wanted = f"dumbwaiter: error: {distribution} is not installed; install it with: pip install 'dumbwaiter[scaler]'\n"
    assert (done.returncode, done.stderr.decode()) == (1, wanted)


@pytest.mark.parametrize("host", ["0.0.0.0", "::1"])
def test_the_address_that_it_listens_on_is_told_as_it_is(project, host):
    command = [sys.executable, "-m", "dumbwaiter", "scaler", "--grpc-port", "0", "--http-port", "0", "--host", host]
    process = subprocess.Popen(
        command, cwd=project, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        shown = re.escape(f"[{host}]" if ":" in host else host)
        assert re.match(
            rf"listening on {shown}:\d+ \(gRPC\) and http://{shown}:\d+\n$", process.stdout.readline().decode()
        )
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
