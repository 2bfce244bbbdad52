"""The log of requests: told only where it is wanted, and taken as a trace by the simulator."""

from __future__ import annotations

import logging

import pytest
from gateway_running import gateway

from dumbwaiter.observe import JsonFormatter
from dumbwaiter.plan.loading import load
from dumbwaiter.plan.services import Curve, Inputs
from echo_worker import serving

pytestmark = pytest.mark.anyio

BYTES = {"content-type": "a/b"}


@pytest.fixture
def log(tmp_path):
    """A file that everything is logged to, as with log_format = "json"."""
    file = tmp_path / "gateway.log"
    handler = logging.FileHandler(file)
    handler.setFormatter(JsonFormatter())
    ours = logging.getLogger("dumbwaiter")
    level = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    yield file
    ours.removeHandler(handler)
    ours.setLevel(level)
    handler.close()


async def test_what_was_asked_is_a_trace(broker, store, log):
    async with serving(broker, store=store), gateway(broker, store, log_requests=True) as running:
        for nbytes in (10, 2000):
            assert (await running.predict(content=bytes(nbytes), headers=BYTES)).status_code == 200
        kept = {**BYTES, "prefer": "respond-async"}
        assert (await running.predict(content=bytes(30), headers=kept)).status_code == 202
        assert (await running.predict(content=bytes(400_000), headers=BYTES)).status_code == 200
    ((name, trace),) = load(log, Inputs(Curve(each=0.5))).items()
    assert name == "echo"
    assert len(trace.arrivals) == 4
    assert list(trace.nbytes[:3]) == [10, 2000, 30]


async def test_unless_it_is_wanted_nothing_is_told_of_requests(broker, store, log):
    async with serving(broker), gateway(broker, store) as running:
        assert (await running.predict(content=b"1", headers=BYTES)).status_code == 200
    assert "nbytes" not in log.read_text()
