"""Results are written once: the first writer wins, and a late one leaves nothing behind."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from dumbwaiter.answers import failed, failure_of
from dumbwaiter.blobs import BlobStore
from dumbwaiter.blobs.claimcheck import check_in
from dumbwaiter.blobs.events import Event, append, event_id, new_attempt, read_events
from dumbwaiter.blobs.results import (
    failure_mark,
    forget_failure,
    has_result,
    head_of_result,
    is_result_body,
    load_result,
    result_body_nbytes,
    result_key,
    save_result,
    stream_result_body,
    with_result_body,
)
from dumbwaiter.errors import BadInputError, BlobDamagedError, BlobError, BlobNotFoundError
from dumbwaiter.message import PREDICTION_FAILED, PREDICTION_SUCCEEDED, Failure, Message

pytestmark = pytest.mark.anyio

FAILURE = Failure(code="model-error", message="wrong")


def answer(body: bytes, **attributes) -> Message:
    return Message(body=body, type=PREDICTION_SUCCEEDED, content_type="text/plain", correlation_id="r1", **attributes)


@pytest.mark.parametrize("body", [b"small", b"large" * 100, b""])
async def test_an_answer_comes_back_as_it_was_saved(store: BlobStore, body):
    saved = answer(body, extensions={"timings": "{}"})
    assert await save_result(store, "r1", saved, threshold=64) == saved
    assert await load_result(store, "r1") == saved


async def test_a_request_without_a_result_yet_is_not_found(store: BlobStore):
    with pytest.raises(BlobNotFoundError, match="results/r1"):
        await load_result(store, "r1")


@pytest.mark.parametrize(
    ("first", "second"), [(b"a", b"b"), (b"a" * 99, b"b"), (b"a", b"b" * 99), (b"a" * 99, b"b" * 99)]
)
async def test_the_late_loser_changes_nothing_and_its_body_is_cleaned_up(store: BlobStore, first, second):
    winner = answer(first)
    await save_result(store, "r1", winner, threshold=64)
    before = await store.list("")
    assert await save_result(store, "r1", answer(second), threshold=64) == winner, "the loser tells what stands"
    assert await store.list("") == before
    assert await load_result(store, "r1") == winner


async def test_of_many_at_once_one_wins_and_only_its_body_stays(store: BlobStore):
    answers = [answer(b"%d" % number * 100) for number in range(16)]
    told = await asyncio.gather(*(save_result(store, "r1", one, threshold=64) for one in answers))
    assert told == [await load_result(store, "r1")] * 16
    assert told[0] in answers
    assert len(await store.list("result-bodies/")) == 1


async def test_a_create_that_the_network_repeated_finds_its_own_first_try(store: BlobStore):
    mine = answer(b"small")
    for _ in range(2):
        assert await save_result(store, "r1", mine, threshold=64) is mine


class RepeatsCreate:
    """A store whose create is sent twice, as an HTTP client does when the first answer got lost."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def create(self, key, data):
        await self._store.create(key, data)
        await self._store.create(key, data)


async def test_a_large_body_survives_a_repeated_create(store: BlobStore):
    mine = answer(b"large" * 100)
    assert await save_result(RepeatsCreate(store), "r1", mine, threshold=64) is mine
    assert await load_result(store, "r1") == mine


class FullWhenCreating(RepeatsCreate):
    """A store whose disk is full when the result itself is written, so many *times*."""

    times = 3

    async def create(self, key, data):
        self.times -= 1
        if self.times >= 0:
            raise BlobError("no space left on the device")
        await self._store.create(key, data)


async def test_whoever_saves_again_after_an_error_writes_the_body_once(store: BlobStore):
    mine = answer(b"large" * 100)
    full = FullWhenCreating(store)
    for _ in range(3):
        with pytest.raises(BlobError, match="no space left"):
            await save_result(full, "r1", mine, threshold=64, attempt=mine.id)
    assert await save_result(full, "r1", mine, threshold=64, attempt=mine.id) is mine
    assert len(await store.list("result-bodies/")) == 1
    assert await load_result(store, "r1") == mine


async def test_the_body_of_a_result_is_found_by_its_own_request_only(store: BlobStore):
    mine = answer(b"large" * 100)
    await save_result(store, "r1", mine, threshold=64)
    head = await head_of_result(store, "r1")
    assert is_result_body(head)
    assert not is_result_body(mine)
    assert await with_result_body(store, "r1", head) == mine
    with pytest.raises(BadInputError, match="is not the body of the result of 'r2'"):
        await with_result_body(store, "r2", head)


async def test_an_answer_that_came_by_claim_check_is_kept_whole(store: BlobStore):
    light = await check_in(store, answer(b"large" * 100), threshold=64)
    assert (await save_result(store, "r1", light, threshold=64)).body == b"large" * 100
    assert (await load_result(store, "r1")).body == b"large" * 100


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"data_base64": "?"}', b"\xff" * 100])
async def test_a_damaged_result_is_an_error_and_not_a_pending_one(store: BlobStore, damage):
    await store.put(result_key("r1"), damage)
    with pytest.raises(BlobDamagedError, match="the result of 'r1' is damaged: ") as caught:
        await load_result(store, "r1")
    assert not isinstance(caught.value, BlobNotFoundError)


async def test_a_result_that_lost_its_body_is_an_error_and_not_a_pending_one(store: BlobStore):
    await save_result(store, "r1", answer(b"large" * 100), threshold=64)
    (body,) = await store.list("result-bodies/")
    await store.delete(body)
    with pytest.raises(BlobDamagedError, match="the result of 'r1' has lost its body: no blob under") as caught:
        await load_result(store, "r1")
    assert not isinstance(caught.value, BlobNotFoundError)


@pytest.mark.parametrize("id_", ["../r1", "a/b", "", "ä" * 300, "\0", "."])
async def test_any_text_is_the_id_of_a_result(store: BlobStore, id_):
    await save_result(store, id_, answer(b"large" * 100), threshold=64)
    assert (await load_result(store, id_)).body == b"large" * 100
    folders = {key.split("/")[0] for key in await store.list("")}
    assert folders == {"results", "result-bodies"}


async def forget(store: BlobStore, request_id: str) -> None:
    """Forget whatever failure there is."""
    await forget_failure(store, request_id, await failure_mark(store, request_id) or "none")


@pytest.mark.parametrize("body", [b"{}", b'{"detail":"' + b"large" * 100 + b'"}', b"no failure at all"])
async def test_only_a_failure_can_be_forgotten_so_that_another_run_writes_its_own_answer(store: BlobStore, body):
    await forget(store, "r1")
    failure = msgspec.structs.replace(answer(body), type=PREDICTION_FAILED)
    await save_result(store, "r1", failure, threshold=64)
    await forget(store, "r1")
    assert await store.list("") == []
    output = answer(body)
    assert await save_result(store, "r1", output, threshold=64) is output
    assert await failure_mark(store, "r1") is None
    await forget(store, "r1")
    assert await load_result(store, "r1") == output


@pytest.mark.parametrize("message", ["by its caller", "long" * 100])
async def test_a_cancellation_is_never_forgotten(store: BlobStore, message):
    cancelled = failed(Message(id="r1"), Failure(code="canceled", message=message))
    await save_result(store, "r1", cancelled, threshold=200)
    assert await failure_mark(store, "r1") is None
    await forget(store, "r1")
    assert failure_of(await load_result(store, "r1")).code == "canceled"


@pytest.mark.parametrize("then", ["another failure", "damage", "nothing"])
async def test_only_the_failure_that_was_meant_is_forgotten(store: BlobStore, then):
    await save_result(store, "r1", failed(Message(id="r1"), FAILURE), threshold=1000)
    mark = await failure_mark(store, "r1")
    await forget(store, "r1")
    if then == "another failure":
        await save_result(store, "r1", failed(Message(id="r1"), FAILURE), threshold=1000)
    elif then == "damage":
        await store.put(result_key("r1"), b"damaged")
    left = await store.list("")
    await forget_failure(store, "r1", mark)
    assert await store.list("") == left


async def test_the_answer_that_a_double_brings_while_a_failure_is_forgotten_keeps_its_body(
    store: BlobStore, monkeypatch
):
    failure = msgspec.structs.replace(answer(b'{"detail":"' + b"large" * 100 + b'"}'), type=PREDICTION_FAILED)
    await save_result(store, "r1", failure, threshold=64)
    mark = await failure_mark(store, "r1")
    delete = store.delete

    async def late(key):
        await delete(key)
        if key == result_key("r1"):
            await save_result(store, "r1", answer(b"large" * 100), threshold=64)

    monkeypatch.setattr(store, "delete", late)
    await forget_failure(store, "r1", mark)
    assert (await load_result(store, "r1")).body == b"large" * 100
    assert len(await store.list("result-bodies/")) == 1, "that of the failure is gone"


async def test_a_store_that_cannot_take_a_result_says_so(local: BlobStore, tmp_path):
    (tmp_path / "blobs").write_text("a file where the folder should be")
    with pytest.raises(BlobError, match="cannot write blob 'results/r1'"):
        await save_result(local, "r1", answer(b"x"), threshold=64)


# --- looking without loading ---


@pytest.mark.parametrize("body", [b"", b"small", b"large" * 100_000])
async def test_a_body_can_be_measured_and_streamed_without_being_loaded(store: BlobStore, body):
    saved = answer(body)
    await save_result(store, "r1", saved, threshold=64)
    head = await head_of_result(store, "r1")
    assert (head.body == b"") == (len(body) > 64 or not body)
    assert (head.id, head.content_type, head.type) == (saved.id, saved.content_type, saved.type)
    assert await result_body_nbytes(store, head) == len(body)
    assert b"".join([chunk async for chunk in stream_result_body(store, head)]) == body


async def test_a_request_is_answered_once_there_is_a_result(store: BlobStore):
    assert not await has_result(store, "r1")
    with pytest.raises(BlobNotFoundError):
        await head_of_result(store, "r1")
    await save_result(store, "r1", answer(b"1"), threshold=64)
    assert await has_result(store, "r1")


async def test_a_store_that_cannot_tell_whether_there_is_a_result_says_so(local: BlobStore, tmp_path):
    (tmp_path / "blobs").symlink_to("blobs")
    with pytest.raises(BlobError, match="cannot read blob 'results/r1'"):
        await has_result(local, "r1")


async def test_a_body_that_was_lost_is_an_error_of_a_name_for_whoever_streams_it(store: BlobStore):
    await save_result(store, "r1", answer(b"large" * 100), threshold=64)
    head = await head_of_result(store, "r1")
    await store.delete(head.data_ref.removeprefix("blob:"))
    for call in (anext(stream_result_body(store, head)), result_body_nbytes(store, head)):
        with pytest.raises(BlobDamagedError, match="the result of 'r1' has lost its body") as caught:
            await call
        assert not isinstance(caught.value, BlobNotFoundError)


# --- forgetting ---


async def tell(store: BlobStore, request_id: str) -> None:
    await append(store, request_id, [Event(id=event_id(new_attempt(3, 1e9), 0), event="start")])


async def test_the_events_of_a_failure_are_forgotten_with_it_and_those_of_an_output_stay(store: BlobStore):
    await save_result(store, "failed", msgspec.structs.replace(answer(b"1"), type=PREDICTION_FAILED), threshold=64)
    await save_result(store, "done", answer(b"1"), threshold=64)
    for id_ in ("failed", "done"):
        await tell(store, id_)
        await forget(store, id_)
    assert await read_events(store, "failed") == []
    assert len(await read_events(store, "done")) == 1
