"""The SQLite broker within one process: what the conformance suite cannot know about a file."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.contract import POSITION_LIMIT
from dumbwaiter.brokers.sqlite import SqliteBroker, schema
from dumbwaiter.brokers.sqlite.looking import _AHEAD, _PLACE
from dumbwaiter.brokers.sqlite.turnstile import Turnstile
from dumbwaiter.errors import (
    BrokerClosedError,
    BrokerUnavailableError,
    ConfigError,
    DeadLetterNotFoundError,
    LockLostError,
    QueueNotFoundError,
)
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


async def take(broker, count=1, *, wait=5.0, queue="q"):
    return await broker.receive(queue, max_messages=count, max_wait=wait)


# --- opening ---


async def test_the_folder_is_created_and_a_relative_url_is_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with open_broker("sqlite:state/deep/queue.db") as broker:
        await broker.create_queue("q")
    assert (tmp_path / "state/deep/queue.db").exists()


@pytest.mark.parametrize("url", ["sqlite:", "sqlite://host/queue.db", "sqlite::memory:", "sqlite:folder/"])
def test_a_url_without_a_file_is_refused_by_name(url):
    with pytest.raises(ConfigError, match="sqlite:"):
        SqliteBroker(url)


def write_text(path):
    path.write_text("this is a diary, not a database\n" * 200)


def write_foreign_tables(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE diary (day TEXT)")
    connection.close()


def write_newer_schema(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE header (seq)")
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION + 1}")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (write_text, "not a database"),
        (write_foreign_tables, "another program"),
        (write_newer_schema, "schema version"),
        (Path.mkdir, "name another file"),
    ],
)
async def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(file, url, spoil, reason):
    spoil(file)
    before = file.is_dir() or file.read_bytes()
    with pytest.raises(BrokerUnavailableError, match=reason) as refused:
        await SqliteBroker(url).open()
    assert str(file) in str(refused.value)
    assert before == (file.is_dir() or file.read_bytes())


def spoil_pages(file):
    """All pages but the first."""
    for rest in ("-wal", "-shm"):
        Path(f"{file}{rest}").unlink(missing_ok=True)
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    file.write_bytes(content)


async def test_a_damaged_file_is_reported_by_name(file, url, broker):
    await broker.send("q", [Message(body=b"x" * 3000) for _ in range(20)])
    await broker.close()
    spoil_pages(file)
    with pytest.raises(BrokerUnavailableError, match=r"queue\.db"):
        async with SqliteBroker(url) as damaged:
            await take(damaged, wait=0)


async def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerUnavailableError, match="choose one that this user may write to"):
        await SqliteBroker(f"sqlite://{tmp_path}/file/queue.db").open()


def test_versions_of_sqlite_with_the_wal_reset_bug_are_refused():
    assert [schema.has_wal_reset_bug(v) for v in ("3.40.1", "3.44.5", "3.50.6", "3.51.0", "3.51.2")] == [True] * 5
    assert [schema.has_wal_reset_bug(v) for v in ("3.44.6", "3.50.7", "3.51.3", "3.54.1", "4.0.0")] == [False] * 5
    with pytest.raises(BrokerUnavailableError, match="WAL-reset bug"):
        schema.refuse_wal_reset_bug("3.40.1")


async def test_a_reboot_drops_locks_and_carries_delays_over(url, broker):
    await broker.send("q", [Message(id="locked")])
    await take(broker)
    await broker.send("q", [Message(id="delayed")], delay=50.0)
    connection = apsw.Connection(str(broker.path))
    # As if the machine had run for 1,000 s more before it was booted again, and the reboot took 20 s.
    shifted = "SELECT value + 1000 - 20 FROM meta WHERE key = 'clock_offset'"
    connection.execute(f"UPDATE meta SET value = ({shifted}) WHERE key = 'clock_offset'")
    connection.execute("UPDATE header SET until = until - 1000 WHERE state = 1")
    connection.execute("UPDATE meta SET value = 'an earlier boot' WHERE key = 'boot_id'")
    connection.close()
    async with SqliteBroker(url) as after:
        stats = await after.stats("q")
        assert (stats.ready, stats.locked, stats.delayed) == (1, 0, 1)
        again = await take(after)
        assert (again[0].message.id, again[0].delivery_count) == ("locked", 2)
        _, due = after.reader.probe(1)
        assert due is not None
        delayed_until = apsw.Connection(str(after.path)).execute("SELECT until FROM header WHERE state = 1").get
        assert 20 < delayed_until - time.monotonic() < 40


async def test_a_broker_may_not_be_used_after_a_fork(broker, another_process):
    with another_process(), pytest.raises(BrokerClosedError, match="fork"):
        await broker.send("q", [Message()])
    await broker.send("q", [Message()])


# --- locks ---


async def test_a_stale_token_does_not_settle_the_next_holders_copy(url):
    async with SqliteBroker(url, lock_duration=0.1) as broker, SqliteBroker(url) as other:
        await broker.create_queue("q")
        await broker.send("q", [Message(id="one")])
        stale = await take(broker)
        mine = await take(other)
        assert mine[0].delivery_count == 2
        for settle in (
            broker.complete(stale),
            broker.abandon(stale),
            broker.dead_letter(stale, reason="late"),
            broker.renew_lock(stale),
        ):
            with pytest.raises(LockLostError) as lost:
                await settle
            assert lost.value.deliveries == stale
        assert (await other.stats("q")).locked == 1
        await other.complete(mine)
        await broker.complete(stale)  # Gone is what it wanted.


async def test_work_that_is_late_but_not_taken_over_may_still_be_completed(url):
    async with SqliteBroker(url, lock_duration=0.05) as broker:
        await broker.create_queue("q")
        await broker.send("q", [Message()])
        late = await take(broker)
        await eventually(lambda: is_ready(broker))
        with pytest.raises(LockLostError):
            await broker.renew_lock(late)
        await broker.complete(late)
        assert await take(broker, wait=0) == []


async def is_ready(broker):
    return (await broker.stats("q")).ready == 1


async def test_of_a_batch_those_that_are_held_are_settled_and_the_lost_are_named(broker):
    await broker.send("q", [Message(id=name) for name in "abc"])
    deliveries = await take(broker, 3)
    await broker.abandon(deliveries[1:2], delay=30)
    with pytest.raises(LockLostError) as lost:
        await broker.complete(deliveries)
    assert [delivery.message.id for delivery in lost.value.deliveries] == ["b"]
    stats = await broker.stats("q")
    assert (stats.ready, stats.locked, stats.delayed) == (0, 0, 1)


async def test_closing_hands_back_what_is_held_at_once_and_uncounted(url, broker):
    await broker.send("q", [Message(), Message()])
    async with SqliteBroker(url) as closing:
        assert len(await take(closing, 2)) == 2
        waiting = asyncio.create_task(take(broker, 2))
    assert [delivery.delivery_count for delivery in await waiting] == [1, 1]


async def test_a_receive_cancelled_at_any_moment_locks_nothing(url, broker):
    async with SqliteBroker(url) as impatient:
        for moment in range(30):
            await broker.send("q", [Message()])
            receive = asyncio.create_task(take(impatient))
            for _ in range(moment % 10):
                await asyncio.sleep(0)
            await asyncio.sleep(moment * 0.0001)
            receive.cancel()
            await asyncio.gather(receive, return_exceptions=True)
            if not receive.cancelled():
                await impatient.complete(receive.result())
                continue
            deliveries = await take(broker)
            assert [delivery.delivery_count for delivery in deliveries] == [1], f"cancelled in moment {moment}"
            await broker.complete(deliveries)


async def test_everything_that_waits_raises_when_the_broker_closes(url, broker):
    async with SqliteBroker(url) as closing:
        inbox = await closing.open_inbox()
        waiting = [
            asyncio.create_task(take(closing, wait=30)),
            asyncio.create_task(inbox.receive(max_messages=1, max_wait=30)),
        ]
        await eventually(lambda: waits_registered(broker, 1))
    for outcome in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(outcome, BrokerClosedError)
    assert waits_registered(broker, 0)


def waits_registered(broker, count):
    return apsw.Connection(str(broker.path)).execute("SELECT count(*) FROM waiter").get == count


# --- deduplication ---


async def test_an_id_is_dropped_while_it_waits_is_locked_is_dead_and_after_it_is_done(broker):
    async def send():
        await broker.send("q", [Message(id="same", body=b"first or later")])

    await send()
    await send()
    assert (await broker.stats("q")).ready == 1
    deliveries = await take(broker)
    await send()
    assert (await broker.stats("q")).ready == 0
    await broker.dead_letter(deliveries, reason="test")
    await send()
    assert await broker.redrive("q") == 1
    await broker.complete(await take(broker))
    await send()
    assert await take(broker, wait=0) == []


async def test_the_same_id_may_go_to_two_queues(broker):
    await broker.create_queue("other")
    await broker.send("q", [Message(id="same")])
    await broker.send("other", [Message(id="same")])
    assert len(await take(broker)) == len(await take(broker, queue="other")) == 1


async def test_completed_ids_are_forgotten_after_ten_minutes_and_the_file_does_not_keep_their_bodies(broker):
    await broker.send("q", [Message(id=str(number), body=b"x" * 1000) for number in range(50)])
    await broker.complete(await take(broker, 50))
    connection = apsw.Connection(str(broker.path))
    assert connection.execute("SELECT count(*) FROM payload").get == 0
    assert connection.execute("SELECT count(*) FROM header").get == 50
    connection.execute("UPDATE header SET until = until - 601")
    await broker.send("q", [Message(id="new")])
    # Each completed message takes two old ones with it, and ten.
    await broker.complete(await take(broker))
    assert connection.execute("SELECT count(*) FROM header").get == 50 + 1 - 12


# --- dead letters ---


@pytest.mark.parametrize("key", ["", "0", "01", "-1", "1.5", "٣", "no key", "9" * 5000])
async def test_what_is_no_key_of_a_dead_letter_leads_nowhere_and_moves_nothing(broker, key):
    await broker.send("q", [Message()])
    await broker.dead_letter(await take(broker), reason="test")
    with pytest.raises(DeadLetterNotFoundError, match="in queue 'q'; see: dumbwaiter dead-letters list q"):
        await broker.dead_letters("q", after=key)
    assert await broker.redrive("q", [key]) == await broker.purge("q", [key]) == 0


# --- trouble ---


async def test_one_bad_call_in_a_commit_fails_alone(broker):
    outcomes = await asyncio.gather(
        broker.send("q", [Message(id="good")]),
        broker.send("nowhere", [Message()]),
        broker.send("q", [Message(id="good too")]),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), QueueNotFoundError, type(None)]
    assert "nowhere" in str(outcomes[1])
    assert len(await take(broker, 5)) == 2


async def test_a_full_disk_is_reported_and_after_space_returns_everything_works(broker):
    await broker.send("q", [Message(id="before")])
    connection = broker._writer._connection
    pages = connection.pragma("page_count")
    connection.execute(f"PRAGMA max_page_count = {pages + 20}")
    assert len(await take(broker)) == 1
    with pytest.raises(BrokerUnavailableError, match=r"queue\.db.*full.*free some space"):
        await broker.send("q", [Message(id="large", body=bytes(1_000_000))])
    assert (await broker.stats("q")).ready == 0
    connection.execute("PRAGMA max_page_count = 1000000")
    await broker.send("q", [Message(id="large", body=bytes(1_000_000))])
    assert [delivery.message.id for delivery in await take(broker)] == ["large"]


@contextmanager
def unlockable(turnstile):
    """Until the end of the block the kernel refuses to lock *turnstile*'s file: its descriptor is one of no file."""
    real = os.dup(turnstile._fd)
    path_only = os.open("/", os.O_PATH)
    try:
        os.dup2(path_only, turnstile._fd, inheritable=False)
        yield
    finally:
        os.dup2(real, turnstile._fd, inheritable=False)
        os.close(real)
        os.close(path_only)


async def test_a_turnstile_that_the_kernel_refuses_makes_the_broker_unavailable_until_it_is_let_in_again(broker):
    await broker.check()
    with unlockable(broker._writer._turnstile):
        calls = [broker.send("q", [Message()]), broker.stats("q"), broker.check(), broker.create_queue("other")]
        sent, stats, checked, created = await asyncio.gather(*calls, return_exceptions=True)
    for error in (sent, checked, created):
        assert isinstance(error, BrokerUnavailableError)
        assert str(error) == (
            f"{broker.path}: [Errno 9] Bad file descriptor; see the reason; the same call may succeed later"
        )
    assert stats.ready == 0
    await broker.send("q", [Message()])
    await broker.check()
    assert (await broker.stats("q")).ready == 1


async def test_a_check_goes_the_way_of_the_writes_and_waits_with_them(broker, file):
    with Turnstile(file, patience=1000.0):
        checking = asyncio.create_task(broker.check())
        sending = asyncio.create_task(broker.send("q", [Message()]))
        assert await asyncio.wait([checking, sending], timeout=0.3) == (set(), {checking, sending})
    await asyncio.gather(checking, sending)
    assert (await broker.stats("q")).ready == 1


async def test_many_calls_at_once_share_few_commits(broker):
    before = broker._writer.commits
    await asyncio.gather(*(broker.send("q", [Message()]) for _ in range(500)))
    assert (await broker.stats("q")).ready == 500
    assert broker._writer.commits - before < 100


def size_of(path):
    return Path(path).stat().st_size


async def test_the_wal_does_not_grow_without_end(broker):
    largest = 0
    for _ in range(150):
        await broker.send("q", [Message(body=bytes(100_000)) for _ in range(4)])
        await broker.complete(await take(broker, 4))
        largest = max(largest, size_of(f"{broker.path}-wal"))
    assert largest < 48_000_000
    assert size_of(broker.path) < 8_000_000  # 60 MB went through; the space is used again.


async def test_statistics_see_other_processes_at_once_and_time_pass(url, broker):
    await broker.send("q", [Message()], delay=0.3)
    async with SqliteBroker(url) as other:
        assert (await other.stats("q")).delayed == 1
        await broker.send("q", [Message()])
        stats = await other.stats("q")
        assert (stats.ready, stats.delayed) == (1, 1)
        await eventually(lambda: counts_ready(other, 2))
        first = (await other.stats("q")).oldest_age
        await asyncio.sleep(0.05)
        assert (await other.stats("q")).oldest_age >= first + 0.04


async def counts_ready(broker, count):
    return (await broker.stats("q")).ready == count


async def test_the_oldest_age_looks_into_every_priority(broker):
    await broker.send("q", [Message(priority=1)])
    await asyncio.sleep(0.1)
    await broker.send("q", [Message(priority=priority) for priority in (9, 5, -3)])
    assert 0.1 <= (await broker.stats("q")).oldest_age < 5


# --- positions ---


async def test_a_position_is_counted_no_further_than_its_limit(broker):
    ids = [f"m{number}" for number in range(POSITION_LIMIT + 2)]
    await broker.send("q", [Message(id=id_, priority=number % 2) for number, id_ in enumerate(ids)])
    # The odd ones are first.
    assert [await broker.position("q", id_) for id_ in ("m1", "m3", "m0")] == [0, 1, POSITION_LIMIT // 2 + 1]
    assert await broker.position("q", ids[-2]) == POSITION_LIMIT


async def test_a_position_sees_what_is_due_before_anybody_has_freed_it(url, broker):
    async with SqliteBroker(url, lock_duration=0.05) as other:
        await broker.send("q", [Message(id="locked"), Message(id="last")])
        await other.receive("q", max_messages=1, max_wait=0)
        await broker.send("q", [Message(id="delayed", priority=3)], delay=0.05)

        async def places():
            found = {id_: await broker.position("q", id_) for id_ in ("delayed", "locked", "last")}
            return found == {"delayed": 0, "locked": 1, "last": 2}

        await eventually(places, what="all three in line")


async def test_a_look_at_a_position_reads_no_more_than_indices(broker):
    connection = broker.reader._connection
    for query, numbers in ((_AHEAD, (1, 0, 1, 0.0)), (_PLACE, (1, "m", 0.0))):
        plan = [row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", numbers)]
        assert not [step for step in plan if step.startswith("SCAN header")], plan
