"""Who serves which model: announced, withdrawn, and forgotten after 20 seconds of silence."""

from __future__ import annotations

import os
import secrets
import time

import msgspec
import obstore
import pytest

from dumbwaiter.blobs import BlobStore, open_store
from dumbwaiter.blobs.presence import (
    FORGOTTEN_AFTER,
    STALE_AFTER,
    WorkerStatus,
    announce,
    forget_the_dead,
    said_of,
    short_reason,
    why_failing,
    why_silent,
    withdraw,
    workers_of,
)
from dumbwaiter.errors import BlobError

pytestmark = pytest.mark.anyio


def status(worker="w1", model="echo", state="ready", **facts) -> WorkerStatus:
    return WorkerStatus(worker=worker, model=model, state=state, **facts)


async def heard_of(store: BlobStore, seconds_ago: float) -> None:
    """Put back the time of the only announcement."""
    (key,) = await store.list("workers/")
    before = msgspec.json.decode(await store.get(key), type=WorkerStatus)
    aged = msgspec.structs.replace(before, announced_at=time.time() - seconds_ago)
    await store.put(key, msgspec.json.encode(aged))


async def test_workers_are_found_by_their_model_with_all_they_said(store: BlobStore):
    said = status(state="failing", reason="no weights", signature={"inputs": ["image"]}, seconds_each=0.02)
    before = time.time()
    await announce(store, said)
    await announce(store, status("w2", "other"))
    (found,) = await workers_of(store, "echo")
    assert before <= found.announced_at <= time.time()
    assert msgspec.structs.replace(found, announced_at=0.0) == said
    assert await workers_of(store, "nobody") == []


async def test_a_worker_of_an_earlier_version_says_nothing_of_its_speed(store: BlobStore):
    said = {"worker": "w1", "model": "echo", "state": "ready", "announced_at": time.time()}
    await store.put("workers/echo/w1.json", msgspec.json.encode(said))
    assert [one.seconds_each for one in await workers_of(store, "echo")] == [0.0]


async def test_a_worker_is_listed_once_however_often_it_announces_itself(store: BlobStore):
    for state in ("loading", "ready", "draining"):
        await announce(store, status(state=state))
    assert [one.state for one in await workers_of(store, "echo")] == ["draining"]


async def test_a_worker_that_said_goodbye_is_gone_at_once(store: BlobStore):
    await announce(store, status())
    await withdraw(store, "echo", "w1")
    await withdraw(store, "echo", "w1")
    assert await workers_of(store, "echo") == []


async def test_a_worker_that_died_without_a_word_is_forgotten_after_20_seconds(store: BlobStore):
    assert STALE_AFTER == 20.0
    await announce(store, status())
    await heard_of(store, seconds_ago=10)
    assert len(await workers_of(store, "echo")) == 1
    await heard_of(store, seconds_ago=20)
    assert await workers_of(store, "echo") == []
    await announce(store, status())
    assert len(await workers_of(store, "echo")) == 1


async def test_what_the_long_dead_said_is_deleted_and_what_the_others_said_stays(store: BlobStore):
    await announce(store, status())
    await heard_of(store, seconds_ago=FORGOTTEN_AFTER - 10)
    await forget_the_dead(store, "echo")
    assert len(await store.list("workers/echo/")) == 1
    await heard_of(store, seconds_ago=FORGOTTEN_AFTER + 1)
    await forget_the_dead(store, "another")
    assert len(await store.list("workers/echo/")) == 1
    await forget_the_dead(store, "echo")
    assert await store.list("workers/echo/") == []


async def test_an_announcement_that_cannot_be_read_hides_nobody_else(store: BlobStore):
    await announce(store, status())
    await store.put("workers/echo/half.json", b'{"worker": ')
    await store.put("workers/echo/odd.json", b'{"worker": "w3", "model": "echo", "state": "asleep"}')
    await store.put("workers/echo/latin.json", b'{"worker": "w\xe9", "model": "echo", "state": "ready"}')
    assert [one.worker for one in await workers_of(store, "echo")] == ["w1"]


STRAY = ("notes (copy).json", "\N{LATIN SMALL LETTER E WITH ACUTE}.json", "x#1", "two\nlines", ".tmp-0")


async def test_what_others_left_among_the_files_of_workers_hides_nobody(tmp_path):
    store = open_store(f"file://{tmp_path}/blobs")
    await announce(store, status())
    folder = tmp_path / "blobs" / "workers" / "echo"
    for name in STRAY:
        (folder / name).write_bytes(b"notes")
    os.close(os.open(os.fsencode(folder) + b"/\xff.json", os.O_CREAT))
    (folder / "loop.json").symlink_to("loop.json")
    (folder / "far.json").symlink_to("x" * 1000)
    (folder / "nowhere.json").symlink_to("nobody-is-there.json")
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")  # to read one would take until somebody writes
    assert [one.worker for one in await workers_of(store, "echo")] == ["w1"]
    await forget_the_dead(store, "echo")
    assert len(list(folder.iterdir())) == 1 + len(STRAY) + 6, "what is not ours is left alone"


async def test_what_others_left_among_the_objects_of_workers_in_a_bucket_hides_nobody():
    store = open_store(f"memory:{secrets.token_hex(8)}")
    await announce(store, status())
    for name in STRAY:
        if name.isprintable():
            obstore.put(store._store, f"workers/echo/{name}", b"notes")
    assert [one.worker for one in await workers_of(store, "echo")] == ["w1"]


class Closed:
    """A store that does not let one of its objects be read."""

    def __init__(self, store: BlobStore, closed: str) -> None:
        self._store = store
        self._closed = closed

    async def list(self, prefix):
        return await self._store.list(prefix)

    def scan(self, prefix):
        return self._store.scan(prefix)

    async def get(self, key):
        if key == self._closed:
            raise BlobError(f"cannot read blob {key!r}: Permission denied")
        return await self._store.get(key)


async def test_what_cannot_be_read_is_nobody_once_no_worker_would_have_left_it_so_long(tmp_path):
    store, key = open_store(f"file://{tmp_path}/blobs"), "workers/echo/closed.json"
    await announce(store, status())
    await store.put(key, b"notes")
    with pytest.raises(BlobError, match="Permission denied"):
        await workers_of(Closed(store, key), "echo")
    long_ago = time.time() - STALE_AFTER - 1.0
    os.utime(tmp_path / "blobs" / key, (long_ago, long_ago))
    assert [one.worker for one in await workers_of(Closed(store, key), "echo")] == ["w1"]


class GoesOut(Closed):
    """A store that is out once it was listed."""

    async def scan(self, prefix):
        raise BlobError(f"cannot list blobs below {prefix!r}: connection refused")
        yield


async def test_a_store_that_goes_out_between_listing_and_reading_is_never_nobody(tmp_path):
    store, key = open_store(f"file://{tmp_path}/blobs"), "workers/echo/w1.json"
    await announce(store, status())
    long_ago = time.time() - STALE_AFTER - 1.0
    os.utime(tmp_path / "blobs" / key, (long_ago, long_ago))
    with pytest.raises(BlobError, match="connection refused"):
        await workers_of(GoesOut(store, key), "echo")


async def test_what_is_dated_far_ahead_is_no_sign_of_life_and_is_deleted_as_what_is_old(store: BlobStore):
    await announce(store, status())
    await heard_of(store, seconds_ago=-5)
    assert len(await workers_of(store, "echo")) == 1, "clocks differ"
    await heard_of(store, seconds_ago=-60)
    assert await workers_of(store, "echo") == []
    assert [one.worker for one in await said_of(store, "echo")] == ["w1"]
    await forget_the_dead(store, "echo")
    assert len(await store.list("workers/echo/")) == 1
    await heard_of(store, seconds_ago=-FORGOTTEN_AFTER - 10)
    await forget_the_dead(store, "echo")
    assert await store.list("workers/echo/") == []


async def test_numbers_that_no_worker_can_have_counted_are_unknown(store: BlobStore):
    damaged = {"seconds_each": 1e308, "work_seconds": -1.0, "load_seconds": 1e300, "settled": 1 << 60, "in_hand": -9}
    await announce(store, status(**damaged))
    (found,) = await workers_of(store, "echo")
    assert {name: getattr(found, name) for name in damaged} == dict.fromkeys(damaged, 0)
    await store.put("workers/echo/deep.json", b"[" * 20_000)
    assert len(await workers_of(store, "echo")) == 1


class LeavesMeanwhile:
    """A store from which a worker leaves between its listing and its reading."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    async def list(self, prefix):
        return [*await self._store.list(prefix), f"{prefix}left.json"]

    async def get(self, key):
        return await self._store.get(key)


async def test_a_worker_that_leaves_while_being_looked_for_is_no_error(store: BlobStore):
    await announce(store, status())
    assert [one.worker for one in await workers_of(LeavesMeanwhile(store), "echo")] == ["w1"]


@pytest.mark.parametrize("name", ["a/b", "..", ".", "ä" * 300, "../../results"])
async def test_any_name_of_a_model_or_worker_stays_below_workers(store: BlobStore, name):
    await announce(store, status("w1", name))
    await announce(store, status(name, "echo"))
    assert all(key.startswith("workers/") and key.count("/") == 2 for key in await store.list(""))
    assert len(await workers_of(store, name)) == 1
    assert len(await workers_of(store, "echo")) == 1
    await withdraw(store, name, "w1")
    assert await workers_of(store, name) == []


async def test_a_model_fails_only_when_all_its_workers_do_and_the_latest_says_why():
    old = status("w1", state="failing", reason="no weights", announced_at=1.0)
    new = status("w2", state="failing", reason="no such file", announced_at=2.0)
    assert why_failing([new, old]) == "no such file"
    for other in ("loading", "ready", "draining"):
        assert why_failing([old, status("w3", state=other)]) is None
    assert why_failing([]) is None


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ([], "no worker of this model is running"),
        (["ready"], "its worker is ready, so the model is busy or slow"),
        (["ready", "ready", "loading"], "2 of its 3 workers are ready, so the model is busy or slow"),
        (["loading"], "its worker is still loading the model"),
        (["loading", "failing"], "one of its 2 workers is still loading the model"),
        (["draining"], "its worker is stopping"),
        (["draining", "failing"], "one of its 2 workers is stopping"),
        (["failing", "failing"], "no worker can load the model: no weights"),
    ],
)
async def test_why_a_model_is_silent(states, reason):
    workers = [status(f"w{n}", state=state, reason="no weights") for n, state in enumerate(states)]
    assert why_silent(workers) == reason


@pytest.mark.parametrize(
    ("reason", "short"),
    [
        ("", ""),
        ("no weights", "no weights"),
        ('Error(s) in loading:\n\tMissing key(s): "a",\n\t"b".', 'Error(s) in loading: Missing key(s): "a", "b".'),
        ("it raised ValueError\nTraceback (most recent call last):\n  File /secret.py", "it raised ValueError"),
        ("a group\n  + Exception Group Traceback (most recent call last):\n  | secret", "a group"),
        ("x" * 400, "x" * 400),
        ("x" * 401, "x" * 399 + "…"),
    ],
)
async def test_a_reason_is_shown_whole_on_one_line_without_its_traceback(reason, short):
    assert short_reason(reason) == short
    assert why_failing([status(state="failing", reason=reason)]) == short
