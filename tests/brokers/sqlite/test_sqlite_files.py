"""Files that are taken away under a broker: the database, the wake-up sockets, the right to write."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import shutil
import socket
from pathlib import Path

import apsw
import pytest

from dumbwaiter.brokers.sqlite import SqliteBroker
from dumbwaiter.brokers.sqlite.wakeups import Kicker
from dumbwaiter.brokers.sqlite.writer import unavailable
from dumbwaiter.errors import BrokerUnavailableError, InboxGoneError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


# --- the wake-up sockets ---


@pytest.fixture
def wake_folder(file):
    return Path(f"{file}-wake")


async def test_a_broker_whose_socket_was_tidied_away_still_gets_its_replies(url, broker, wake_folder):
    async with SqliteBroker(url) as asker:
        inbox = await asker.open_inbox()
        shutil.rmtree(wake_folder)
        await broker.reply(inbox.address, [Message(body=b"not lost")])
        (message,) = await inbox.receive(max_messages=1, max_wait=10)
        assert message.body == b"not lost"
        await broker.reply(inbox.address, [Message()])


async def test_a_waiting_inbox_puts_its_brokers_socket_back(url, broker, wake_folder):
    async with SqliteBroker(url) as asker:
        inbox = await asker.open_inbox()
        shutil.rmtree(wake_folder)
        waiting = asyncio.create_task(inbox.receive(max_messages=1, max_wait=30))
        await eventually(Path(asker._socket.path).is_socket)
        woken = asyncio.Event()
        asker._inboxes.wake = woken.set  # what a datagram leads to
        await broker.reply(inbox.address, [Message(body=b"found again")])
        await asyncio.wait_for(woken.wait(), 10)
        assert [message.body for message in await waiting] == [b"found again"]


async def test_a_waiting_receive_puts_its_brokers_socket_back_and_is_woken(url, broker, wake_folder):
    async with SqliteBroker(url) as worker:
        waiting = asyncio.create_task(worker.receive("q", max_messages=1, max_wait=30))
        await eventually(lambda: counts(broker, "waiter") == 1)
        shutil.rmtree(wake_folder)
        await eventually(Path(worker._socket.path).is_socket)
        await broker.send("q", [Message(id="one")])
        assert [delivery.message.id for delivery in await waiting] == ["one"]


def counts(broker, table):
    return apsw.Connection(str(broker.path)).execute(f"SELECT count(*) FROM {table}").get


async def test_an_idle_broker_puts_its_socket_back_when_it_tidies_up(broker, wake_folder):
    shutil.rmtree(wake_folder)
    broker._maintenance.cancel()
    broker._maintain()
    await eventually(Path(broker._socket.path).is_socket)


async def test_inboxes_that_were_forgotten_with_the_socket_are_registered_again(url, broker, wake_folder):
    async with SqliteBroker(url) as asker:
        inbox = await asker.open_inbox()
        shutil.rmtree(wake_folder)
        # As a process of another container would, which cannot see that this one lives.
        apsw.Connection(str(broker.path)).execute("DELETE FROM inbox")
        with pytest.raises(InboxGoneError):
            await broker.reply(inbox.address, [Message()])
        assert await inbox.receive(max_messages=1, max_wait=0.6) == []
        await eventually(lambda: counts(broker, "inbox") == 1)
        await broker.reply(inbox.address, [Message(body=b"known again")])
        assert [message.body for message in await inbox.receive(max_messages=1, max_wait=10)] == [b"known again"]


async def test_a_socket_that_cannot_be_put_back_costs_time_only(url, broker, wake_folder):
    async with SqliteBroker(url) as asker:
        inbox = await asker.open_inbox()
        shutil.rmtree(wake_folder)
        wake_folder.write_text("in the way")
        waiting = asyncio.create_task(inbox.receive(max_messages=1, max_wait=30))
        await broker.reply(inbox.address, [Message(body=b"slow")])
        assert [message.body for message in await waiting] == [b"slow"]
        wake_folder.unlink()


def test_a_missing_socket_is_dead_only_with_its_process(tmp_path):
    gone = {str(tmp_path / name) for name in ("4194305-0123", "no number", "no\0path")}
    mine = str(tmp_path / f"{os.getpid()}-0123")
    kicker = Kicker()
    assert kicker.kick((path, b"i") for path in [*gone, mine]) == gone
    kicker.close()


def test_what_is_no_socket_is_not_removed(tmp_path):
    diary, abandoned = tmp_path / "diary", tmp_path / f"{os.getpid()}-0123"
    diary.write_text("dear diary")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(abandoned))
    kicker = Kicker()
    assert kicker.kick([(str(diary), b"i"), (str(abandoned), b"i")]) == {str(diary), str(abandoned)}
    kicker.close()
    assert (diary.read_text(), abandoned.exists()) == ("dear diary", False)


# --- the database ---


def delete(file):
    for name in (file, f"{file}-wal", f"{file}-shm"):
        Path(name).unlink()


def replace(file):
    copy = file.with_name("copy.db")
    shutil.copy(file, copy)
    copy.replace(file)


def delete_the_folder(file):
    file.parent.rename(file.parent.with_name("elsewhere"))


@pytest.mark.parametrize("lose", [delete, replace, delete_the_folder])
async def test_a_database_that_was_deleted_or_replaced_is_no_longer_used(tmp_path, lose):
    file = tmp_path / "folder" / "queue.db"
    async with SqliteBroker(f"sqlite://{file}") as broker:
        await broker.create_queue("q")
        waiting = asyncio.create_task(broker.receive("q", max_messages=1, max_wait=30))
        await eventually(lambda: counts(broker, "waiter") == 1)
        lose(file)
        calls = [
            waiting,
            broker.send("q", [Message()]),
            broker.check(),
            broker.queues(),
            broker.stats("q"),
            broker.dead_letters("q"),
        ]
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, BrokerUnavailableError)
            assert str(outcome) == (
                f"{file}: the file was deleted or replaced under us; restart the processes that share it"
            )
    assert file.exists() == (lose is replace)


# --- damage ---


def damage_all_but_the_row_of_a_check(file: Path) -> None:
    """Overwrite a part of each page of *file* behind that row's."""
    connection = apsw.Connection(str(file))
    (whole,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'meta'").fetchall()[0]
    page = connection.pragma("page_size")
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()
    with file.open("r+b") as content:
        for start in range(whole * page, file.stat().st_size, 512):
            content.seek(start)
            content.write(b"\xa5" * 64)


@pytest.mark.parametrize("verb", ["send", "stats"])
async def test_once_any_call_has_met_damage_a_check_says_so(url, file, verb):
    async with SqliteBroker(url) as broker:
        await broker.create_queue("q")
        await broker.send("q", [Message(body=b"x" * 10_000) for _ in range(10)])
        damage_all_but_the_row_of_a_check(file)
        await broker.check()
        call = {"send": lambda: broker.send("q", [Message()]), "stats": lambda: broker.stats("q")}[verb]
        for fails in (call, call, broker.check):
            with pytest.raises(BrokerUnavailableError, match=f"^{file}: .*malformed.*; move the file away, or name"):
                await fails()


# --- the right to write ---


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.EROFS, "Read-only file system"), "mount its file system writable, or name another file"),
        (apsw.ReadOnlyError("attempt to write a readonly database"), "make it writable for this user, with its folder"),
    ],
)
def test_what_may_not_be_written_is_not_said_to_pass(error, advice):
    message = str(unavailable(Path("queue.db"), error))
    assert message.startswith("queue.db: ")
    assert advice in message
    assert "later" not in message


# --- the right to write more ---


@contextlib.contextmanager
def nothing_can_be_written():
    """As on a full disk: each write into a file fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_check_says_when_nothing_can_be_written(broker):
    await broker.check()
    with nothing_can_be_written(), pytest.raises(BrokerUnavailableError, match=r"free some space|I/O error"):
        await broker.check()
    await broker.check()


async def test_many_checks_are_one_row(broker):
    for _ in range(3):
        await broker.check()
    rows = apsw.Connection(str(broker.path)).execute("SELECT count(*) FROM meta WHERE key = 'checked_at'").get
    assert rows == 1
