"""Who is stopped inside the turnstile is put out of it; who is slow is not; and the rest goes on."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from dumbwaiter.brokers.sqlite import SqliteBroker, writer
from dumbwaiter.brokers.sqlite.turnstile import Turnstile, holder_of, state_of
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


async def test_a_process_stopped_inside_a_transaction_is_killed_after_a_locks_length_and_the_others_go_on(
    url, broker, child, caplog
):
    stopped = child("write", url, "stop")
    assert await asyncio.to_thread(stopped.line) == ["inside"]
    await eventually(lambda: state_of(stopped.process.pid) == "T")
    async with asyncio.timeout(20), SqliteBroker(url, lock_duration=0.5) as other:
        await other.send("q", [Message(id="after")])
    assert await asyncio.to_thread(stopped.process.wait, 10) == -signal.SIGKILL
    assert f"process {stopped.process.pid} was stopped while it held the write lock" in caplog.text
    assert [d.message.id for d in await broker.receive("q", max_messages=1, max_wait=5)] == ["after"]


async def test_a_process_that_is_only_slow_inside_a_transaction_is_waited_for(url, broker, child):
    slow = child("write", url, "sleep", "2.0")
    assert await asyncio.to_thread(slow.line) == ["inside"]
    async with SqliteBroker(url, lock_duration=0.5) as other:
        await other.send("q", [Message()])
    assert await asyncio.to_thread(slow.end) == [["left"]]
    assert slow.process.returncode == 0


async def test_a_process_stopped_outside_a_transaction_is_left_alone(url, broker, child):
    await broker.send("q", [Message(id="one")])
    holder = child("hold", url, "0.5")
    assert await asyncio.to_thread(holder.line) == ["holding", "one"]
    holder.process.send_signal(signal.SIGSTOP)
    async with SqliteBroker(url, lock_duration=0.5) as other:
        assert [d.message.id for d in await other.receive("q", max_messages=1, max_wait=20)] == ["one"]
    assert state_of(holder.process.pid) == "T"


async def test_closing_does_not_wait_for_a_slow_process_and_what_is_held_goes_back_when_it_has_left(
    url, broker, file, monkeypatch
):
    monkeypatch.setattr(writer, "_CLOSE_SECONDS", 0.2)
    await broker.send("q", [Message(id="one")])
    closing = SqliteBroker(url)
    await closing.open()
    assert len(await closing.receive("q", max_messages=1, max_wait=5)) == 1
    with Turnstile(file, patience=1000.0):
        async with asyncio.timeout(10):
            await closing.close()
        assert closing._writer._thread.is_alive()
    (again,) = await broker.receive("q", max_messages=1, max_wait=20)
    assert (again.message.id, again.delivery_count) == ("one", 1)
    await eventually(lambda: not closing._writer._thread.is_alive())


def test_the_holder_is_read_from_the_kernels_list_of_locks(tmp_path):
    file = tmp_path / "queue.db.lock"
    file.touch()
    stat = file.stat()
    place = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
    waiter = f"1: -> FLOCK  ADVISORY  WRITE 11 {place} 0 EOF"
    other = "2: FLOCK  ADVISORY  WRITE 12 00:00:1 0 EOF"
    posix = f"3: POSIX  ADVISORY  WRITE 13 {place} 0 EOF"
    holder = f"4: FLOCK  ADVISORY  WRITE 14 {place} 0 EOF"
    elsewhere = f"5: FLOCK  ADVISORY  WRITE 0 {place} 0 EOF"
    assert holder_of(stat, "\n".join([waiter, other, posix, holder])) == 14
    assert holder_of(stat, "\n".join([waiter, other, posix])) is None
    assert holder_of(stat, elsewhere) is None, "a process of another container has no number here"


def test_a_process_that_is_gone_has_no_state():
    assert state_of(os.getpid()) == "R"
    assert state_of(2**22 + 1) is None


async def test_a_forked_child_does_not_hold_on_to_what_its_killed_parent_held(url, broker, child):
    parent = child("write", url, "fork", "60")
    assert await asyncio.to_thread(parent.line) == ["inside"]
    orphan = int((await asyncio.to_thread(parent.line))[1])
    parent.process.kill()
    async with asyncio.timeout(20), SqliteBroker(url, lock_duration=5.0) as other:
        await other.send("q", [Message(id="after")])
    assert state_of(orphan) == "S", "the child lives on"
    os.kill(orphan, signal.SIGKILL)
