"""`serve` and `autoscale` as processes: workers that come with the work, and are gone when it is done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time

import psutil
import pytest

from dumbwaiter.answers import failure_of
from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.config import load_settings
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

SCALING = {
    "DUMBWAITER_SCALING__MAX_REPLICAS": "3",
    "DUMBWAITER_SCALING__IDLE_AFTER": "1s",
    "DUMBWAITER_SCALING__SCALE_IN_AFTER": "1s",
    "DUMBWAITER_SCALING__COLD_START": "0s",
}
NAP = """
import time

class Nap:
    def __call__(self, text: str) -> str:
        time.sleep(0.02)
        return text.upper()
"""


@pytest.fixture
def settings(project):
    (project / "nap.py").write_text(NAP)
    (project / "dumbwaiter.toml").touch()
    return load_settings(project / "dumbwaiter.toml", environ={})


@contextlib.asynccontextmanager
async def asking(settings, **options):
    """The broker, and an inbox for answers."""
    async with open_broker(settings.broker, **options) as broker:
        inbox = await broker.open_inbox()
        yield broker, inbox
        await inbox.close()


async def burst(broker, inbox, count: int, *, model: str = "nap", name: str = "") -> None:
    """So many at once; their ids are *name* with a number."""
    name = name or secrets.token_hex(4)
    bodies = [f"text {n}".encode() for n in range(count)]
    messages = [
        Message(id=f"{name}-{n}", body=body, content_type="text/plain", reply_to=inbox.address)
        for n, body in enumerate(bodies)
    ]
    await broker.send(model, messages)


async def answers(inbox, count: int, *, within: float = 60.0) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    async with asyncio.timeout(within):
        while len(found) < count:
            for answer in await inbox.receive(max_messages=1000, max_wait=5.0):
                assert failure_of(answer) is None, failure_of(answer)
                found[answer.correlation_id] = answer.body
    return found


async def test_a_burst_on_zero_workers_is_answered_and_then_there_are_none_again(serve, settings):
    serving = serve("nap:Nap", DUMBWAITER_SCALING__LOOK_EVERY="1s", **SCALING).ready()
    there = serving.event("scaled", model="nap")
    assert (there["from"], there["to"], there["why"]) == (1, 0, "idle")
    serving.event("left", name="nap")
    async with asking(settings) as (broker, inbox):
        await burst(broker, inbox, 500, name="nap")
        found = await answers(inbox, 500)
    assert found == {f"nap-{n}": f"TEXT {n}".encode() for n in range(500)}
    up = serving.event("scaled", model="nap")
    assert up["from"] == 0
    assert up["to"] >= 1
    while up["to"]:
        up = serving.event("scaled", model="nap")
    assert up["why"] == "idle"
    worker_left = [serving.event("left")["name"]]
    assert worker_left[0].startswith("nap")
    answer = serving.predict("nap", "once more")
    assert (answer.status_code, answer.json()["output"]) == (200, "ONCE MORE"), "the gateway waits for the worker"
    assert serving.stop() == 0


async def test_the_most_that_is_allowed_come_for_much_work_and_the_event_says_why(serve, settings):
    serving = serve("nap:Nap", DUMBWAITER_SCALING__DRAIN_TARGET="0.5s", **SCALING).ready()
    async with asking(settings) as (broker, inbox):
        await burst(broker, inbox, 50)
        await answers(inbox, 50)
        await burst(broker, inbox, 1000)
        event = serving.event("scaled", to=3)
        assert event["why"] in {"backlog", "load"}
        assert event["work"] > 1.0
        assert event["offered"] >= 0.0
        assert len(await answers(inbox, 1000)) == 1000
    told = serving.log_file.read_text()
    assert f"nap: {event['from']} -> 3 workers ({event['why']}; work " in told


async def test_a_model_that_cannot_be_loaded_gets_one_worker_however_much_waits_and_says_why(serve, settings, project):
    """And when the cause is gone it is served, without anybody's doing."""
    variables = {**SCALING, "DUMBWAITER_SCALING__LOOK_EVERY": "50ms", "DUMBWAITER_SCALING__SIGNAL": "messages"}
    serving = serve("light:Picky", **variables)
    failing = serving.event("state", name="picky", state="failing")
    assert "no weights in this house" in failing["reason"]
    async with asking(settings) as (broker, inbox):
        await eventually(lambda: broker.has_queue("picky"), within=10.0)
        await burst(broker, inbox, 200, model="picky")
        told = "picky should have 3 workers; "
        await eventually(lambda: told in serving.log_file.read_text(), within=20.0)
        tries = (project / "tries").stat().st_size
        await eventually(lambda: (project / "tries").stat().st_size >= tries + 1, within=30.0, what="its next try")
        workers = [one for one in psutil.Process(serving.process.pid).children() if "worker" in one.cmdline()]
        assert len(workers) == 1
        (project / "weights").touch()
        assert len(await answers(inbox, 200)) == 200


async def test_a_worker_that_is_killed_again_and_again_is_not_started_by_each_look(serve, settings):
    variables = {**SCALING, "DUMBWAITER_SCALING__LOOK_EVERY": "50ms", "DUMBWAITER_SCALING__IDLE_AFTER": "600s"}
    serving = serve("light:Slow", **variables).ready()
    pid = serving.pids["slow"]
    async with asking(settings, lock_duration=1.0) as (broker, inbox):
        await broker.send("slow", [Message(body=b"1000", content_type="text/plain", reply_to=inbox.address)])
        pauses = []
        for _ in range(3):
            os.kill(pid, signal.SIGKILL)
            pauses.append(serving.event("died", name="slow")["restart_in"])
            pid = serving.event("started", name="slow")["pid"]
        assert pauses == [0.5, 1.0, 2.0]


async def test_autoscale_keeps_workers_without_a_gateway_and_none_while_nothing_waits(serve, settings):
    scaling = serve("nap:Nap", word="autoscale", DUMBWAITER_SCALING__LOOK_EVERY="200ms", **SCALING)
    first = scaling.event("scaled", model="nap")
    assert (first["from"], first["to"], first["why"]) == (0, 1, "no queue yet")
    scaling.event("state", name="nap", state="ready")
    assert scaling.event("scaled")["to"] == 0
    scaling.event("left", name="nap")
    children = psutil.Process(scaling.process.pid).children()
    assert children == [], "no gateway, no courier"
    async with asking(settings) as (broker, inbox):
        await burst(broker, inbox, 5)
        assert len(await answers(inbox, 5)) == 5
        assert scaling.stop() == 0
        await burst(broker, inbox, 1)
        assert (await broker.stats("nap")).ready == 1
    assert "following the work of nap; Ctrl-C stops it" in scaling.log_file.read_text()


async def test_two_autoscalers_on_one_project_come_to_rest(serve, settings):
    """Each starts what is missing, so for a while there may be too many; the surplus goes, and the last one stays."""
    variables = {**SCALING, "DUMBWAITER_SCALING__LOOK_EVERY": "100ms", "DUMBWAITER_SCALING__IDLE_AFTER": "600s"}
    pair = [serve("nap:Nap", word="autoscale", **variables) for _ in range(2)]
    store = open_store(settings.blobs)
    from dumbwaiter.blobs.presence import workers_of

    async def states() -> list[str]:
        return [status.state for status in await workers_of(store, "nap")]

    await eventually(states, within=30.0)
    calm_since = None

    async def calm() -> bool:
        nonlocal calm_since
        now = await states()
        if now != ["ready"]:
            calm_since = None
        elif calm_since is None:
            calm_since = time.monotonic()
        return calm_since is not None and time.monotonic() - calm_since > 5.0

    await eventually(calm, within=60.0, every=0.1, what="one worker, for five seconds")
    assert [one.stop() for one in pair] == [0, 0]


def test_what_cannot_be_scaled_is_refused_with_a_reason(run):
    refused = run("serve", "light:Shout", "--broker", "memory:", "--port", "0", DUMBWAITER_SCALING__MAX_REPLICAS="3")
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "dumbwaiter: error: models.shout.scaling.max_replicas: with the broker memory: all "
    )
    refused = run("autoscale", "light:Shout", "--broker", "memory:", DUMBWAITER_SCALING__MAX_REPLICAS="3")
    assert (refused.returncode, "memory: cannot be shared with worker processes" in refused.stderr) == (2, True)
    refused = run("autoscale", "light:Shout")
    assert (refused.returncode, "models.shout.scaling has no max_replicas" in refused.stderr) == (2, True)
    refused = run("autoscale")
    assert (refused.returncode, "no model to scale; set max_replicas" in refused.stderr) == (2, True)
