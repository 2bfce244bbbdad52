"""What is old goes, in an order that leaves nothing half; what is young, or belongs to nobody's request, stays."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from dumbwaiter.blobs import BlobStore, files
from dumbwaiter.blobs.acceptances import Acceptance, accept
from dumbwaiter.blobs.cards import ModelCard, save_card
from dumbwaiter.blobs.claimcheck import check_in
from dumbwaiter.blobs.events import Event, append, event_id, new_attempt
from dumbwaiter.blobs.files import make_folder
from dumbwaiter.blobs.presence import WorkerStatus, announce
from dumbwaiter.blobs.results import load_result, save_result
from dumbwaiter.blobs.retention import GRACE, sweep
from dumbwaiter.blobs.signing_key import load_signing_key
from dumbwaiter.errors import BlobError, BlobNotFoundError
from dumbwaiter.message import PREDICTION_SUCCEEDED, Message

pytestmark = pytest.mark.anyio

WEEK = 7 * 86400.0


async def fill(store: BlobStore, id_: str = "r1") -> None:
    """One of each that is swept."""
    await accept(store, None, "m", id_, Acceptance(id=id_, digest="d", created_at=time.time()))
    await check_in(store, Message(id=id_, body=b"large" * 10), threshold=4)
    event = Event(id=event_id(new_attempt(1, time.time()), 0), event="start")
    await append(store, id_, [event])
    await save_result(store, id_, Message(type=PREDICTION_SUCCEEDED, body=b"large" * 10), threshold=4)


async def folders(store: BlobStore) -> set[str]:
    return {key.partition("/")[0] for key in await store.list("")}


async def test_what_is_old_is_removed_and_counted(store: BlobStore):
    await fill(store)
    assert await sweep(store, older_than=WEEK, claims_older_than=WEEK, now=time.time() + WEEK + GRACE + 1) == 5
    assert await store.list("") == []


async def test_what_is_young_stays(store: BlobStore):
    await fill(store)
    before = await store.list("")
    assert await sweep(store, older_than=WEEK, claims_older_than=WEEK, now=time.time() + WEEK - 60) == 0
    assert await store.list("") == before


async def test_a_claim_that_is_younger_stays_whatever_its_id_says(store: BlobStore):
    """Ids are chosen by senders, and name old times or none."""
    light = await check_in(store, Message(id="0" * 32, body=b"12345"), threshold=0)
    await sweep(store, older_than=WEEK, claims_older_than=WEEK, now=time.time() + WEEK - 60)
    assert await store.get(light.data_ref.removeprefix("blob:")) == b"12345"


async def test_a_claim_has_an_age_of_its_own_for_its_request_may_wait_still(store: BlobStore):
    await fill(store)
    later = time.time() + 2 * WEEK + GRACE
    await sweep(store, older_than=WEEK, claims_older_than=3 * WEEK, now=later)
    assert await folders(store) == {"claims"}
    assert await sweep(store, older_than=WEEK, claims_older_than=3 * WEEK, now=later + WEEK) == 1


async def test_what_belongs_to_a_result_outlives_it(store: BlobStore):
    await fill(store)
    assert await sweep(store, older_than=WEEK, claims_older_than=WEEK, now=time.time() + WEEK + 1) == 3
    assert await folders(store) == {"result-bodies", "events"}


async def test_what_is_no_requests_is_left_alone(store: BlobStore):
    await load_signing_key(store)
    await save_card(store, ModelCard(name="m"))
    await announce(store, WorkerStatus(worker="w", model="m", state="ready"))
    await store.put("keys/k.json", b"{}")
    await store.put("own/thing", b"1")
    before = await store.list("")
    assert await sweep(store, older_than=0.0, claims_older_than=0.0, now=time.time() + 1e9) == 0
    assert await store.list("") == before


async def test_a_sweep_ends_at_its_limit_and_the_next_one_goes_on(store: BlobStore):
    for number in range(10):
        await fill(store, f"r{number}")
    now = time.time() + WEEK + GRACE + 1
    assert await sweep(store, older_than=WEEK, claims_older_than=WEEK, now=now, limit=13) == 13
    assert len(await store.list("")) == 37
    assert len(await store.list("acceptances/")) == 0, "first of all"
    counts = [await sweep(store, older_than=WEEK, claims_older_than=WEEK, now=now, limit=13) for _ in range(3)]
    assert counts == [13, 13, 11]
    assert await store.list("") == []


class Failing:
    """A store that deletes so *many* objects, and then no more."""

    def __init__(self, store: BlobStore, many: int) -> None:
        self._store = store
        self.many = many

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def delete(self, key):
        if not self.many:
            raise BlobError("the service is away")
        self.many -= 1
        await self._store.delete(key)


@pytest.mark.parametrize("many", range(10))
async def test_a_fault_at_any_moment_leaves_results_whole_or_gone_and_no_acceptance_without_one(
    store: BlobStore, many: int
):
    await fill(store, "r1")
    await fill(store, "r2")
    with pytest.raises(BlobError, match="the service is away"):
        await sweep(Failing(store, many), older_than=WEEK, claims_older_than=WEEK, now=time.time() + WEEK + GRACE + 1)
    answered = set()
    for id_ in ("r1", "r2"):
        try:
            assert (await load_result(store, id_)).body == b"large" * 10
            answered.add(id_)
        except BlobNotFoundError:
            pass
    assert {key.rpartition("/")[2] for key in await store.list("acceptances/")} <= answered


async def test_several_may_sweep_at_once(store: BlobStore):
    for number in range(20):
        await fill(store, f"r{number}")
    now = time.time() + WEEK + GRACE + 1
    await asyncio.gather(*(sweep(store, older_than=WEEK, claims_older_than=WEEK, now=now) for _ in range(4)))
    assert await store.list("") == []


async def test_an_empty_store_is_swept_in_peace(store: BlobStore):
    assert await sweep(store, older_than=WEEK, claims_older_than=WEEK, now=time.time()) == 0


# --- the local folder ---


def aged(path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


async def test_what_dead_writers_left_unfinished_is_removed_once_it_is_old(local: BlobStore, tmp_path):
    await local.put("claims/a", b"1")
    old, young = (tmp_path / "blobs" / "claims" / name for name in (".tmp-old", ".tmp-young"))
    for path in (old, young):
        path.write_bytes(b"half")
    aged(old, WEEK + 1)
    assert await sweep(local, older_than=WEEK, claims_older_than=WEEK, now=time.time()) == 1
    assert not old.exists()
    assert young.exists()
    assert await local.list("") == ["claims/a"]


async def test_folders_of_requests_that_are_gone_are_removed_once_they_are_old(local: BlobStore, tmp_path):
    await fill(local)
    await sweep(local, older_than=WEEK, claims_older_than=WEEK, now=time.time() + WEEK + GRACE + 1)
    await sweep(local, older_than=WEEK, claims_older_than=WEEK, now=time.time() + WEEK + GRACE + 1)
    left = {str(path.relative_to(tmp_path / "blobs")) for path in (tmp_path / "blobs").rglob("*")}
    assert left == {"acceptances", "claims", "events", "result-bodies", "results"}


@pytest.mark.parametrize("verb", ["put", "create"])
async def test_a_folder_that_is_removed_while_somebody_writes_there_is_made_anew(local: BlobStore, monkeypatch, verb):
    removed = []

    def make_and_lose(folder):
        make_folder(folder)
        if not removed:
            removed.append(folder)
            folder.rmdir()

    monkeypatch.setattr(files, "make_folder", make_and_lose)
    await getattr(local, verb)("events/r1/0", b"1")
    assert len(removed) == 1
    assert await local.get("events/r1/0") == b"1"


async def test_a_folder_that_is_in_use_again_stays(local: BlobStore, tmp_path):
    await local.put("events/r1/0", b"1")
    await local.put("events/r2/0", b"1")
    await local.delete("events/r2/0")
    for name in ("r1", "r2"):
        aged(tmp_path / "blobs" / "events" / name, WEEK + 1)
    assert await local.remove_leftovers(before=time.time() - WEEK) == 0
    assert [path.name for path in (tmp_path / "blobs" / "events").iterdir()] == ["r1"]


async def test_a_scan_tells_sizes_and_times_of_all_objects(store: BlobStore):
    before = time.time() - 1
    keys = [f"claims/{number:04}" for number in range(2500)]
    for start in range(0, 2500, 100):
        await asyncio.gather(*(store.put(key, b"12", durable=False) for key in keys[start : start + 100]))
    pages = [page async for page in store.scan("claims/")]
    assert [len(page) for page in pages] == [1000, 1000, 500]
    entries = [entry for page in pages for entry in page]
    assert sorted(entry.key for entry in entries) == keys
    assert all(entry.nbytes == 2 and before < entry.modified_at < time.time() + 1 for entry in entries)
    assert [page async for page in store.scan("results/")] == []
    with pytest.raises(BlobError, match="not a blob prefix"):
        await anext(store.scan("claims"))
