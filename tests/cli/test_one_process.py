"""`serve --broker memory:`: a runtime that fails ends all, and says why."""

from __future__ import annotations

import asyncio
import secrets
import socket

import pytest

from dumbwaiter.cli.one_process import OneProcess
from dumbwaiter.config import Settings, WorkerSettings
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


class Listener:
    def __init__(self):
        self.states = set()
        self.deaths = []

    def reported(self, child):
        self.states.add((child.plan.name, child.report.state))

    def died(self, child, why, delay):
        self.deaths.append((child.plan.name, why, delay))


@pytest.fixture
def settings():
    name = secrets.token_hex(4)
    return Settings(broker=f"memory:{name}", blobs=f"memory:{name}", worker=WorkerSettings(grace=2.0))


@pytest.fixture
def spec(project):
    return ModelSpec(name="shout", target="light:Shout", project=str(project))


async def test_it_serves_until_told_to_stop_and_returns_0(settings, spec):
    listener = Listener()
    one = OneProcess(settings, [spec], listener, port=0)
    running = asyncio.create_task(one.run())
    ready = {("gateway", "ready"), ("shout", "ready"), ("courier", "ready")}
    await eventually(lambda: ready <= listener.states, within=30.0)
    one.stop.set()
    assert await running == 0
    assert listener.deaths == []


async def test_a_gateway_that_cannot_listen_ends_all_with_its_reason_and_1(settings, spec, caplog):
    listener = Listener()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert await OneProcess(settings, [spec], listener, port=port).run() == 1
    ((name, why, delay),) = listener.deaths
    assert (name, delay) == ("gateway", None)
    assert why == f"failed: cannot listen on 127.0.0.1:{port}: Address already in use; choose another port"
    assert "gateway failed" in caplog.text


async def test_a_worker_that_fails_ends_all_with_its_reason_and_1(settings, spec, monkeypatch):
    async def fail(*_args, **_options):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("dumbwaiter.worker.run.run_worker", fail)
    listener = Listener()
    assert await OneProcess(settings, [spec], listener, port=0).run() == 1
    assert listener.deaths == [("shout", "failed: a fault of ours", None)]
