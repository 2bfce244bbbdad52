"""Gateway, consumers and runners of one `serve` are killed at random while 500 requests wait: each is answered once."""

from __future__ import annotations

import asyncio
import json
import random

import psutil
import pytest
from node import MODEL

from dumbwaiter.answers import failure_of
from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.results import load_result
from dumbwaiter.brokers import open_broker
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually
from processes import Serving, starting

pytestmark = [pytest.mark.anyio, pytest.mark.trial, pytest.mark.timeout(180)]

REQUESTS = 500
KILLS = 9
IDS = [f"request-{number:03}" for number in range(REQUESTS)]


@pytest.mark.parametrize("seed", [1, 2])
async def test_whoever_is_killed_every_request_ends_once(tmp_path, seed):
    (tmp_path / "network.py").write_text(MODEL.replace("0.02", "0.1"))
    (tmp_path / "dumbwaiter.toml").write_text(
        'lock_duration = "2s"\n[models.model]\ntarget = "network:Model"\nreplicas = 2\n'
    )
    chance = random.Random(seed)
    store = open_store(f"file://{tmp_path}/.dumbwaiter/blobs")
    with starting(tmp_path) as start:
        serving = start().ready()
        async with open_broker(f"sqlite://{tmp_path}/.dumbwaiter/queue.db", lock_duration=2.0) as broker:
            await broker.send("model", [Message(id=id_, body=id_.encode(), content_type="text/plain") for id_ in IDS])
            for _ in range(KILLS):
                await eventually(lambda: victims(serving), within=30.0, what="somebody to kill")
                chance.choice(victims(serving)).kill()
                await asyncio.sleep(chance.random() * 0.3)  # no waiting for anything: the moment is left to chance

            async def all_ended() -> bool:
                stats = await broker.stats("model")
                assert stats.ready + stats.locked + stats.delayed == 0, stats
                return True

            await eventually(all_ended, within=90.0, every=0.2)
            dead = {letter.message.id: letter for letter in await broker.dead_letters("model", limit=REQUESTS)}
            for id_ in IDS:
                answer = await load_result(store, id_)
                failure = failure_of(answer)
                if failure is None:
                    assert answer.body == id_.upper().encode()
                    assert id_ not in dead, "answered, and given up on too"
                else:
                    assert failure.code == "runner-crashed", failure
                    assert "SIGKILL" in failure.message
                    assert dead[id_].reason == "runner-crashed"
        assert json.loads(serving.run("queues", "--json").stdout)[0]["locked"] == 0


def victims(serving: Serving) -> list[psutil.Process]:
    """The gateway, the consumers and the runners that live just now."""
    return psutil.Process(serving.process.pid).children(recursive=True)
