"""Dead letters and what belongs to them: sent back without their kept failure, deleted with their claimed bodies."""

from __future__ import annotations

import secrets

import pytest

from dumbwaiter.answers import failed, failure_of
from dumbwaiter.asking import cancel
from dumbwaiter.blobs.claimcheck import check_in
from dumbwaiter.blobs.objects import ObjectBlobStore
from dumbwaiter.blobs.results import failure_mark, forget_failure, load_result, result_key, save_result
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.dead_letters import PAGE, find, purge, redrive
from dumbwaiter.errors import BlobError, BlobNotFoundError, DeadLetterNotFoundError, QueueNotFoundError
from dumbwaiter.message import PREDICTION_SUCCEEDED, Failure, Message

pytestmark = pytest.mark.anyio


class Watched(MemoryBroker):
    """Notes how many dead letters each look has brought."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[int] = []

    async def dead_letters(self, queue, *, limit=100, after=None):
        page = await super().dead_letters(queue, limit=limit, after=after)
        self.pages.append(len(page))
        return page


@pytest.fixture
async def broker():
    async with Watched() as broker:
        await broker.create_queue("q")
        yield broker


class Fragile(ObjectBlobStore):
    """Deletes nothing while it *is_down*."""

    is_down = False

    async def delete(self, key):
        if self.is_down:
            raise BlobError("the disk is gone")
        await super().delete(key)


@pytest.fixture
def store():
    return Fragile(f"memory:{secrets.token_hex(8)}")


async def give_up_on(broker, messages):
    """Dead-letter *messages*, one after the other; their keys."""
    await broker.send("q", messages)
    for delivery in await broker.receive("q", max_messages=len(messages), max_wait=5.0):
        await broker.dead_letter([delivery], reason="model-error")
    return [letter.key for letter in await broker.dead_letters("q", limit=10_000)]


async def counts(broker):
    stats = await broker.stats("q")
    return stats.ready, stats.dead


def hundreds():
    return [Message(id=f"m{number}") for number in range(2 * PAGE + 50)]


# --- finding ---


async def test_dead_letters_are_found_by_key_and_by_message_id_in_the_order_of_the_names(broker):
    keys = await give_up_on(broker, hundreds())
    found = await find(broker, "q", ["m249", keys[0], "m120"])
    assert [letter.message.id for letter in found] == ["m249", "m0", "m120"]


async def test_they_are_looked_for_page_by_page_and_no_further_than_the_last_key(broker):
    keys = await give_up_on(broker, hundreds())
    broker.pages.clear()
    await find(broker, "q", [keys[PAGE], keys[3]])
    assert broker.pages == [PAGE, PAGE]


async def test_a_key_goes_before_an_equal_message_id(broker):
    keys = await give_up_on(broker, [Message(id="2"), Message(id="other")])
    assert keys[1] == "2"
    assert [letter.message.id for letter in await find(broker, "q", ["2"])] == ["other"]


async def test_all_missing_names_are_told(broker):
    (key,) = await give_up_on(broker, [Message()])
    with pytest.raises(DeadLetterNotFoundError) as caught:
        await find(broker, "q", ["nosuch", key, "neither"])
    assert caught.value.names == ["nosuch", "neither"]
    assert str(caught.value) == "no dead letter nosuch, neither in queue 'q'; see: dumbwaiter dead-letters list q"


@pytest.mark.parametrize("verb", [redrive, purge])
async def test_nothing_is_done_when_one_is_missing_and_an_unknown_queue_is_told(broker, store, verb):
    (key,) = await give_up_on(broker, [Message()])
    with pytest.raises(DeadLetterNotFoundError, match="no dead letter nosuch in queue"):
        await verb(broker, store, "q", [key, "nosuch"])
    assert await counts(broker) == (0, 1)
    for names in (None, [key]):
        with pytest.raises(QueueNotFoundError, match="nowhere"):
            await verb(broker, store, "nowhere", names)


@pytest.mark.parametrize("verb", [redrive, purge])
async def test_no_names_are_none_and_not_all(broker, store, verb):
    await give_up_on(broker, [Message()])
    assert await verb(broker, store, "q", []) == 0
    assert await counts(broker) == (0, 1)


@pytest.mark.parametrize("verb", [redrive, purge])
async def test_one_that_is_named_twice_counts_once(broker, store, verb):
    keys = await give_up_on(broker, [Message(id="m"), Message()])
    assert await verb(broker, store, "q", [keys[0], "m"]) == 1
    assert (await counts(broker))[1] == 1


# --- redriving ---


async def test_a_redriven_dead_letter_leaves_no_kept_failure_that_would_keep_its_answer_out(broker, store):
    await give_up_on(broker, [Message(id="m")])
    request = Message(id="m")
    await save_result(store, "m", failed(request, Failure(code="model-error", message="wrong")), threshold=1000)
    assert await redrive(broker, store, "q", ["m"]) == 1
    with pytest.raises(BlobNotFoundError):
        await load_result(store, "m")
    assert await counts(broker) == (1, 0)


async def test_a_kept_output_stays_when_its_dead_letter_is_redriven(broker, store):
    await give_up_on(broker, [Message(id="m")])
    await save_result(store, "m", Message(type=PREDICTION_SUCCEEDED, body=b"cat"), threshold=1000)
    assert await redrive(broker, store, "q") == 1
    assert (await load_result(store, "m")).body == b"cat"


async def test_hundreds_are_redriven_in_their_order(broker, store):
    messages = hundreds()
    await give_up_on(broker, messages)
    assert await redrive(broker, store, "q") == len(messages)
    again = await broker.receive("q", max_messages=1000, max_wait=5.0)
    assert [delivery.message.id for delivery in again] == [message.id for message in messages]


async def test_what_dies_again_at_once_is_redriven_once(store):
    class Hopeless(MemoryBroker):
        async def redrive(self, queue, keys=None):
            count = await super().redrive(queue, keys)
            again = await self.receive(queue, max_messages=1000, max_wait=0.0)
            await self.dead_letter(again, reason="again")
            return count

    async with Hopeless() as broker:
        await broker.create_queue("q")
        await give_up_on(broker, hundreds())
        assert await redrive(broker, store, "q") == 2 * PAGE + 50
        assert await counts(broker) == (0, 2 * PAGE + 50)


async def save_failure(store, id_):
    failure = Failure(code="model-error", message="wrong")
    await save_result(store, id_, failed(Message(id=id_), failure), threshold=1000)


async def test_a_store_that_fails_stops_a_redrive_before_its_messages_are_sent_back(broker, store):
    await give_up_on(broker, [Message(id="m")])
    await save_failure(store, "m")
    store.is_down = True
    with pytest.raises(BlobError, match="the disk is gone"):
        await redrive(broker, store, "q")
    assert await counts(broker) == (0, 1)


async def test_a_result_that_nobody_can_read_goes_as_a_failure_does(broker, store):
    await give_up_on(broker, [Message(id="m")])
    await store.put(result_key("m"), b"damaged")
    assert await redrive(broker, store, "q") == 1
    assert await counts(broker) == (1, 0)
    assert await store.list("") == []


@pytest.mark.parametrize("died_at", [0, 1, 2])
async def test_whoever_dies_in_a_redrive_leaves_the_other_failures_and_redriving_again_heals_the_one(store, died_at):
    class Dying(MemoryBroker):
        calls = 0

        async def redrive(self, queue, keys=None):
            if keys:
                if self.calls == died_at:
                    self.calls = -1000
                    raise KeyboardInterrupt
                self.calls += 1
            return await super().redrive(queue, keys)

    async with Dying() as broker:
        await broker.create_queue("q")
        await give_up_on(broker, [Message(id=name) for name in "abc"])
        for name in "abc":
            await save_failure(store, name)
        with pytest.raises(KeyboardInterrupt):
            await redrive(broker, store, "q")
        dead = [letter.message.id for letter in await broker.dead_letters("q")]
        assert dead == list("abc")[died_at:]
        failures = [key.removeprefix("results/") for key in await store.list("results/")]
        assert failures == dead[1:], "of all but one that is a dead letter still"
        assert await redrive(broker, store, "q") == len(dead)
        assert await counts(broker) == (3, 0)
        assert await store.list("results/") == []


async def test_those_with_and_without_a_failure_are_redriven_in_their_order(broker, store):
    await give_up_on(broker, [Message(id=name) for name in "abcdef"])
    for name in "be":
        await save_failure(store, name)
    assert await redrive(broker, store, "q") == 6
    again = await broker.receive("q", max_messages=10, max_wait=5.0)
    assert [delivery.message.id for delivery in again] == list("abcdef")


class Overlapped(MemoryBroker):
    """Once all dead letters were listed, *meanwhile* happens."""

    meanwhile = None

    async def dead_letters(self, queue, *, limit=100, after=None):
        page = await super().dead_letters(queue, limit=limit, after=after)
        if not page and self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            await happens()
        return page


@pytest.fixture
async def overlapped(store):
    """A broker with one dead letter, ``m``, of which a failure is kept."""
    async with Overlapped() as broker:
        await broker.create_queue("q")
        await give_up_on(broker, [Message(id="m")])
        await save_failure(store, "m")
        yield broker


async def test_what_a_caller_cancels_after_another_has_redriven_it_stays_cancelled(overlapped, store):
    async def meanwhile():
        assert await redrive(overlapped, store, "q") == 1
        await cancel(store, "m")
        await overlapped.complete(await overlapped.receive("q", max_messages=1, max_wait=0.0))

    overlapped.meanwhile = meanwhile
    assert await redrive(overlapped, store, "q") == 0
    assert failure_of(await load_result(store, "m")).code == "canceled"


async def test_what_failed_again_after_another_has_redriven_it_keeps_its_new_failure(overlapped, store):
    async def meanwhile():
        assert await redrive(overlapped, store, "q") == 1
        await save_failure(store, "m")
        again = await overlapped.receive("q", max_messages=1, max_wait=0.0)
        await overlapped.dead_letter(again, reason="model-error")

    overlapped.meanwhile = meanwhile
    assert await redrive(overlapped, store, "q") == 0
    assert failure_of(await load_result(store, "m")).code == "model-error"
    assert await counts(overlapped) == (0, 1)


async def test_what_another_has_purged_keeps_its_failure(overlapped, store):
    async def meanwhile():
        assert await purge(overlapped, store, "q") == 1

    overlapped.meanwhile = meanwhile
    assert await redrive(overlapped, store, "q") == 0
    assert failure_of(await load_result(store, "m")).code == "model-error"


async def test_what_was_cancelled_after_a_redrive_died_half_way_is_redriven_and_stays_cancelled(overlapped, store):
    async def meanwhile():
        await forget_failure(store, "m", await failure_mark(store, "m"))
        await cancel(store, "m")

    overlapped.meanwhile = meanwhile
    assert await redrive(overlapped, store, "q") == 1
    assert failure_of(await load_result(store, "m")).code == "canceled"


async def test_a_cancelled_request_that_is_a_dead_letter_stays_cancelled_when_it_is_redriven(broker, store):
    await give_up_on(broker, [Message(id="m")])
    await cancel(store, "m")
    assert await redrive(broker, store, "q") == 1
    assert failure_of(await load_result(store, "m")).code == "canceled"
    assert await counts(broker) == (1, 0)


# --- purging ---


async def test_a_purged_dead_letter_takes_its_claimed_body_along_and_no_other(broker, store):
    gone, kept = [await check_in(store, Message(id=name, body=b"x" * 99), threshold=10) for name in ("gone", "kept")]
    await give_up_on(broker, [gone, kept])
    assert await purge(broker, store, "q", ["gone"]) == 1
    assert [f"blob:{key}" for key in await store.list("claims/")] == [kept.data_ref]
    assert await counts(broker) == (0, 1)


async def test_a_reference_that_is_not_a_claim_of_ours_is_left_alone(broker, store):
    await store.put("results/others", b"an answer")
    await give_up_on(broker, [Message(data_ref="blob:results/others"), Message(data_ref="https://example.org/cat.jpg")])
    assert await purge(broker, store, "q") == 2
    assert await store.get("results/others") == b"an answer"


async def test_hundreds_are_purged_page_by_page_with_their_bodies(broker, store):
    messages = [await check_in(store, message, threshold=-1) for message in hundreds()]
    await give_up_on(broker, messages)
    broker.pages.clear()
    assert await purge(broker, store, "q") == len(messages)
    assert max(broker.pages) == PAGE
    assert await store.list("claims/") == []
    assert await counts(broker) == (0, 0)


async def test_a_store_that_fails_leaves_the_dead_letter_to_be_purged_again(broker, store):
    message = await check_in(store, Message(id="m", body=b"body"), threshold=0)
    await give_up_on(broker, [message])
    store.is_down = True
    with pytest.raises(BlobError, match="the disk is gone"):
        await purge(broker, store, "q")
    assert await counts(broker) == (0, 1)
    store.is_down = False
    assert await purge(broker, store, "q") == 1
    assert await store.list("claims/") == []
