"""Fifty scale-ins at random moments under load: whatever is retired, no request is lost and no batch interrupted."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.presence import workers_of
from dumbwaiter.brokers import open_broker
from dumbwaiter.cli.fleet import SupervisedFleet
from dumbwaiter.cli.supervisor import Plan, Supervisor
from dumbwaiter.config import load_settings
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.trial, pytest.mark.timeout(600)]

SCALE_INS, WORKERS = 50, 4
SEED = 20_260
#: Each batch leaves a line when it begins and one when it ends, so that one that was interrupted is seen.
MODEL = """
import os, time

def say(word, texts):
    with open("batches.txt", "a") as file:
        file.write(f"{word} {os.getpid()} {','.join(texts)}\\n")

class Model:
    max_batch = 4

    def __call__(self, texts: list[str]) -> list[str]:
        say("begun", texts)
        time.sleep(0.05 if hash(texts[0]) % 5 else 0.6)
        say("ended", texts)
        return [text.upper() for text in texts]
"""


class Silent:
    """Hears what happens, and remembers who died that was not told to leave."""

    def __init__(self) -> None:
        self.deaths: list[tuple[str, str]] = []
        self.gone = 0

    def started(self, child) -> None: ...
    def reported(self, child) -> None: ...
    def said(self, child, line) -> None: ...

    def died(self, child, why, delay) -> None:
        self.deaths.append((child.plan.name, why))

    def left(self, child) -> None:
        self.gone += 1


async def test_nothing_is_lost_or_interrupted_over_fifty_scale_ins_under_load(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "network.py").write_text(MODEL)
    (tmp_path / "dumbwaiter.toml").write_text('[worker]\ngrace = "300ms"\n')
    settings = load_settings(tmp_path / "dumbwaiter.toml", environ={})
    audience, luck = Silent(), random.Random(SEED)

    def plan(number: int) -> Plan:
        return Plan(
            f"model-{number}", "model", ["worker", "model=network:Model", "--grace", "0.3"], comes_and_goes=True
        )

    supervisor = Supervisor([], audience, settings)
    fleet = SupervisedFleet(supervisor, {"model": plan})
    running = asyncio.create_task(supervisor.run())
    sent: list[str] = []
    found: dict[str, bytes] = {}
    async with open_broker(settings.broker, lock_duration=5.0) as broker:
        await broker.create_queue("model")
        inbox = await broker.open_inbox()
        asking = asyncio.create_task(_ask(broker, inbox, sent))
        hearing = asyncio.create_task(_hear(inbox, found))
        for number in range(SCALE_INS):
            while len(fleet.members("model")) < WORKERS:
                fleet.start("model")
            await eventually(lambda: _serving(fleet) >= WORKERS - 1, within=60.0, every=0.05)
            await asyncio.sleep(luck.random() * 0.4)
            for victim in luck.sample(list(fleet.members("model")), luck.randint(1, 2)):
                fleet.retire("model", victim.name)
            assert not asking.done(), number
        asking.cancel()
        await eventually(lambda: len(found) == len(sent), within=60.0, every=0.1, what=f"{len(sent)} answers")
        hearing.cancel()
        await eventually(lambda: len(supervisor.children) == len(fleet.members("model")), within=60.0)
        await eventually(lambda: _is_empty(broker), within=20.0, what="an empty queue")
    assert found == {name: name.upper().encode() for name in sent}
    assert audience.deaths == [], "none ended otherwise than well, or by a signal"
    assert audience.gone >= SCALE_INS
    _assert_nobody_was_interrupted(tmp_path)
    supervisor.stop.set()
    assert await running == 0
    assert await workers_of(open_store(settings.blobs), "model") == []


def _serving(fleet: SupervisedFleet) -> int:
    return sum(member.state == "ready" for member in fleet.members("model"))


async def _is_empty(broker) -> bool:
    stats = await broker.stats("model")
    assert stats.dead == 0
    return (stats.ready, stats.locked, stats.delayed) == (0, 0, 0)


async def _ask(broker, inbox, sent: list[str]) -> None:
    """Steadily about as much as three workers can do."""
    while True:
        names = [f"request-{len(sent) + number}" for number in range(8)]
        messages = [
            Message(id=name, body=name.encode(), content_type="text/plain", reply_to=inbox.address) for name in names
        ]
        await broker.send("model", messages)
        sent += names
        await asyncio.sleep(0.08)


async def _hear(inbox, found: dict[str, bytes]) -> None:
    while True:
        for answer in await inbox.receive(max_messages=1000, max_wait=5.0):
            assert answer.correlation_id not in found, "answered twice: a batch was interrupted, and run again"
            found[answer.correlation_id] = answer.body


def _assert_nobody_was_interrupted(folder: Path) -> None:
    lines = [line.split(" ", 1) for line in (folder / "batches.txt").read_text().splitlines()]
    begun = sorted(what for word, what in lines if word == "begun")
    ended = sorted(what for word, what in lines if word == "ended")
    assert begun == ended
    assert len(begun) > SCALE_INS
