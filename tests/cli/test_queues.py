"""`dumbwaiter queues`."""

from __future__ import annotations

import asyncio
import json

import pytest
from msgspec.structs import replace

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.cards import ModelCard, save_card
from dumbwaiter.brokers import ADAPTERS, open_broker
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.cli import main
from dumbwaiter.cli.queues import oldest
from dumbwaiter.message import Message, QueueStats

pytestmark = pytest.mark.anyio


@pytest.fixture
async def filled(project):
    """Two ready in `busy`, one locked and one dead; nothing in `idle`. The lock's holder stays."""
    (project / ".dumbwaiter").mkdir()
    async with open_broker(f"sqlite:{project}/.dumbwaiter/queue.db") as broker:
        await broker.create_queue("busy")
        await broker.create_queue("idle")
        await broker.send("busy", [Message(body=b"x") for _ in range(4)])
        locked, dead = await broker.receive("busy", max_messages=2, max_wait=5.0)
        await broker.dead_letter([dead], reason="bad-input", detail="")
        yield locked


async def test_all_queues_are_shown_for_people(run, filled):
    shown = run("queues")
    assert (shown.returncode, shown.stderr) == (0, "")
    header, busy, idle = [line.split() for line in shown.stdout.splitlines()]
    assert header == ["queue", "ready", "locked", "delayed", "dead", "oldest"]
    assert busy[:5] == ["busy", "2", "1", "0", "1"]
    assert busy[5:] != ["-"], "the age of what waits"
    assert idle == ["idle", "0", "0", "0", "0", "-"]


async def test_all_queues_are_shown_for_programs(run, filled):
    busy, idle = json.loads(run("queues", "--json").stdout)
    assert 0 < busy.pop("oldest_age") < 60
    assert busy == {"queue": "busy", "ready": 2, "locked": 1, "delayed": 0, "dead": 1}
    assert idle["queue"] == "idle"


async def test_only_the_named_queues_are_shown(run, filled):
    assert [one["queue"] for one in json.loads(run("queues", "--json", "idle").stdout)] == ["idle"]


async def test_an_unknown_queue_is_told_with_those_that_there_are(run, filled):
    shown = run("queues", "bsy")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == "dumbwaiter: error: no queue named 'bsy'; there are: busy, idle; did you mean 'busy'?\n"


async def test_without_any_queue_it_says_how_one_comes_to_be(run, project):
    async with open_broker(f"sqlite:{project}/.dumbwaiter/queue.db"):
        pass
    shown = run("queues")
    assert shown.returncode == 0
    assert shown.stdout == (
        f"no queues on sqlite:{project}/.dumbwaiter/queue.db yet; a worker creates the queue of its model\n"
    )
    assert json.loads(run("queues", "--json").stdout) == []


@pytest.mark.parametrize(
    ("ready", "age", "shown"),
    [(0, 0.0, "-"), (0, None, "-"), (3, 12.5, "12.5 s"), (3, None, "?"), (None, None, "?"), (None, 12.5, "12.5 s")],
)
async def test_the_age_of_what_waits_is_shown_and_a_broker_that_cannot_tell_it_is_no_zero(ready, age, shown):
    assert oldest(QueueStats(ready=ready, locked=0, delayed=0, dead=0, oldest_age=age)) == shown


class Quiet(MemoryBroker):
    """Cannot list its queues, nor count what is locked."""

    capabilities = replace(MemoryBroker.capabilities, multi_process=True, lists_queues=False, counts_locked=False)

    async def queues(self):
        raise AssertionError("nobody asks it")

    async def has_queue(self, queue):
        return queue in self._server.queues

    async def stats(self, queue):
        return replace(await super().stats(queue), locked=None)


@pytest.fixture
async def quiet(monkeypatch, project):
    monkeypatch.chdir(project)
    async with Quiet("memory://quiet") as broker:
        await broker.create_queue("busy")
        await broker.send("busy", [Message(body=b"x")])
        monkeypatch.setitem(ADAPTERS, "memory", f"{__name__}:Quiet")
        yield
        await broker.complete(await broker.receive("busy", max_messages=1, max_wait=1.0))


async def test_of_a_broker_that_cannot_list_its_queues_those_are_shown_whose_models_have_a_card(quiet, project, capsys):
    store = open_store(f"file:{project}/.dumbwaiter/blobs")
    where = ["--broker", "memory://quiet", "--blobs", f"file:{project}/.dumbwaiter/blobs"]
    for command in (["queues"], ["dead-letters", "list"]):
        assert await asyncio.to_thread(main, [*command, *where]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "memory://quiet cannot list its queues" in err
        assert f"name them: dumbwaiter {' '.join(command)} NAME" in err
        assert await asyncio.to_thread(main, [*command, "--json", *where]) == 2
        assert json.loads(capsys.readouterr().out) is None
    for name in ("busy", "gone"):
        await save_card(store, ModelCard(name=name))
    assert await asyncio.to_thread(main, ["queues", *where]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["queue", "busy"]
    assert await asyncio.to_thread(main, ["dead-letters", "list", *where]) == 0


async def test_of_such_a_broker_a_named_queue_is_shown_and_what_it_cannot_tell_is_no_zero(quiet, capsys):
    assert await asyncio.to_thread(main, ["queues", "busy", "--broker", "memory://quiet"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["busy", "1", "?"]


async def test_what_a_broker_cannot_count_at_all_is_a_question_mark_and_in_json_null(quiet, capsys, monkeypatch):
    async def tells_nothing(self, queue):
        return QueueStats(ready=None, locked=None, delayed=None, dead=None, oldest_age=None)

    monkeypatch.setattr(Quiet, "stats", tells_nothing)
    assert await asyncio.to_thread(main, ["queues", "busy", "--broker", "memory://quiet"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["busy", *"?????"]
    assert await asyncio.to_thread(main, ["queues", "busy", "--json", "--broker", "memory://quiet"]) == 0
    counts = dict.fromkeys(("ready", "locked", "delayed", "dead", "oldest_age"))
    assert json.loads(capsys.readouterr().out) == [{"queue": "busy", **counts}]


async def test_of_such_a_broker_an_unknown_queue_is_named_with_where_it_was_looked_for(quiet, capsys):
    assert await asyncio.to_thread(main, ["queues", "bsy", "--broker", "memory://quiet"]) == 1
    assert "no queue named 'bsy'; which others there are this broker cannot list" in capsys.readouterr().err
