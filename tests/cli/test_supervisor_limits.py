"""What the system does not give, or a fault of ours takes, ends no more than it must."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import sys
import threading
from pathlib import Path

import psutil
import pytest
from supervising import Listener, worker

from dumbwaiter.brokers import open_broker
from dumbwaiter.cli.supervisor import Plan, Supervisor
from dumbwaiter.config import Settings, load_settings
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually
from processes import gone

pytestmark = pytest.mark.anyio


def open_descriptors(pid="self"):
    return {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}


@contextlib.contextmanager
def only_so_many_free(count):
    """This process may open *count* more files, and no more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken, limit = open_descriptors(), 0
    while count or limit in taken:
        count -= limit not in taken
        limit += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("free", range(6))
async def test_one_for_which_no_file_can_be_opened_is_tried_again_and_ends_nobody(project, monkeypatch, free):
    """At each step of a start something else cannot be opened."""
    monkeypatch.chdir(project)
    listener = Listener()
    supervisor = Supervisor([], listener, Settings())
    running = asyncio.create_task(supervisor.run())
    await asyncio.sleep(0)
    before = open_descriptors()
    with only_so_many_free(free):
        supervisor.add(worker("one"))
        await eventually(lambda: listener.deaths, within=5.0)
    assert listener.deaths == [("one", "cannot be started: Too many open files", 0.5)]
    assert open_descriptors() == before, "nothing is left of it"
    (child,) = supervisor.children
    assert (child.deaths, child.process, child.last_words) == (1, None, "cannot be started: Too many open files")
    assert not running.done()
    await eventually(lambda: child.process, within=10.0, what="its second start")
    supervisor.stop.set()
    assert await running == 0


async def test_one_of_a_fixed_number_that_never_can_be_started_is_given_up_on_as_one_that_dies(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr("dumbwaiter.cli.supervisor.restart_delay", lambda deaths: 0.01 * deaths)
    listener = Listener()
    with only_so_many_free(0):
        assert await Supervisor([Plan("one", "slow", ["worker", "slow=light:Slow"])], listener, Settings()).run() == 1
    assert [delay for _, _, delay in listener.deaths] == [0.01, 0.02, 0.03, 0.04, None]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="since then no thread waits for a child")
async def test_one_for_which_no_thread_is_given_is_tried_again_and_its_process_ends(project, monkeypatch):
    monkeypatch.chdir(project)
    listener, start, refused = Listener(), threading.Thread.start, []
    before = psutil.Process().children()

    def start_unless_first(thread):
        if "waitpid" in thread.name and not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_unless_first)
    supervisor = Supervisor([worker("one")], listener, Settings())
    running = asyncio.create_task(supervisor.run())
    await eventually(lambda: listener.deaths, within=5.0)
    assert listener.deaths == [("one", "cannot be started: can't start new thread", 0.5)]
    await gone([one for one in psutil.Process().children() if one not in before])
    await eventually(lambda: "one" in listener.said_when_ready, within=30.0)
    supervisor.stop.set()
    assert await running == 0


class Deaf(Listener):
    """Raises when it is told of a start, which is a fault of ours."""

    def started(self, child):
        raise ZeroDivisionError(child.plan.name)


async def test_a_fault_of_ours_ends_all_and_is_raised_once(project, monkeypatch, caplog):
    monkeypatch.chdir(project)
    supervisor = Supervisor([worker("one"), worker("two")], Deaf(), Settings())
    with pytest.raises(ZeroDivisionError, match="one"):
        await supervisor.run()
    del supervisor
    gc.collect()
    assert not [record for record in caplog.records if "never retrieved" in record.message]


async def test_serve_goes_on_when_it_can_open_no_more_files(serve):
    variables = {"MAX_REPLICAS": "4", "DRAIN_TARGET": "100ms", "COLD_START": "0s", "LOOK_EVERY": "200ms"}
    serving = serve("light:Slow", **{f"DUMBWAITER_SCALING__{name}": value for name, value in variables.items()}).ready()
    serve_itself = psutil.Process(serving.process.pid)
    soft, hard = serve_itself.rlimit(psutil.RLIMIT_NOFILE)
    few = max(open_descriptors(serving.process.pid)) + 7
    serve_itself.rlimit(psutil.RLIMIT_NOFILE, (few, hard))
    async with open_broker(serving_broker(serving)) as broker:
        await broker.send("slow", [Message(body=b"0.2", content_type="text/plain") for _ in range(100)])
        death = serving.event("died", reason="cannot be started: Too many open files")
        serve_itself.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))
        serving.event("started", name=death["name"])
        answer = serving.predict("slow", "0")
        assert (answer.status_code, answer.json()["output"]) == (200, "0")
    assert serving.stop() == 0


def serving_broker(serving):
    """The URL of its queues."""
    (serving.project / "dumbwaiter.toml").touch()
    return load_settings(serving.project / "dumbwaiter.toml", environ={}).broker
