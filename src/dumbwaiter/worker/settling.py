"""How a message ends: result saved, then told, then completed; or handed back; or dead-lettered with its reason.

Told are an inbox, and the courier of webhooks and reply URLs. Of several answers the stored one counts, whoever made
it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from dumbwaiter.answers import failed, failure_of, succeeded
from dumbwaiter.blobs.claimcheck import check_in, claim_threshold_for, drop
from dumbwaiter.blobs.results import head_of_result, save_result
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.errors import (
    BlobDamagedError,
    BlobError,
    BrokerClosedError,
    BrokerError,
    BrokerUnavailableError,
    InboxGoneError,
)
from dumbwaiter.holding import insist, insist_on_broker, renew
from dumbwaiter.message import Delivery, Failure, Message, Timings, is_url
from dumbwaiter.policies.retrying import Answer, Fault, GiveUp, Retry, judge
from dumbwaiter.prediction import CANCELED
from dumbwaiter.tasks import end
from dumbwaiter.worker.hand import Hand, Held
from dumbwaiter.worker.notifying import Notifier

T = TypeVar("T")
_log = logging.getLogger(__name__)
INBOXES_RETURN_WITHIN = 5.0
"""For so many seconds after an outage an inbox that is gone may be opened again by whoever waits for its answers."""
_AT_ONCE = 8
_UNSAVED_DELAY = 5.0
#: Verdicts that nobody need look at again.
_NO_DEAD_LETTERS = frozenset({CANCELED, "deadline-exceeded"})


class Outcome:
    """What one held message came to: *answer* for whoever asked (None: it will be tried again) and what to do.

    *is_stored*: the answer is the request's stored result already. *leaves_body*: the body that the message claims is
    a dead letter's as well, and stays for its redrive.
    """

    __slots__ = ("answer", "end", "failure", "held", "is_stored", "leaves_body")

    def __init__(
        self, held: Held, answer: Message | None, end: Answer | GiveUp | Retry, failure: Failure | None = None
    ) -> None:
        self.held = held
        self.answer = answer
        self.end = end
        self.failure = failure
        self.is_stored = self.leaves_body = False

    def give_way(self, stored: Message) -> None:
        """*stored* was first: it is what everybody is told, whatever came out here."""
        request = self.held.request
        self.answer = msgspec.structs.replace(stored, correlation_id=request.correlation_id or request.id)
        self.is_stored = True
        self.failure = failure_of(stored)
        self.end = Answer()
        # Whoever saved a failure may have been stopped before the message got to the dead letters, and where it came
        # back uncounted it has the very count that it failed with. With a smaller one it is a double of a message that
        # has ended. A double of what failed at once cannot be told, and a second dead letter is better than none.
        if self.failure is not None and self.failure.code not in _NO_DEAD_LETTERS:
            self.leaves_body = self.held.delivery.delivery_count < self.failure.attempts
            self.end = Answer() if self.leaves_body else GiveUp()

    def give_up_on(self, error: BlobDamagedError) -> None:
        """The stored answer cannot be read. It stands until a person redrives the message, and takes it away so."""
        self.failure = Failure(code="result-damaged", message=str(error), attempts=self.held.delivery.delivery_count)
        self.answer = failed(self.held.request, self.failure, timings=Timings())
        self.is_stored, self.end = True, GiveUp()


def answered(held: Held, stored: Message) -> Outcome:
    """*stored* is the request's result already."""
    outcome = Outcome(held, None, Answer())
    outcome.give_way(stored)
    return outcome


def damaged(held: Held, error: BlobDamagedError) -> Outcome:
    """It was answered, and nobody can read the answer. Waiting changes nothing: a person has to look at it."""
    outcome = Outcome(held, None, GiveUp())
    outcome.give_up_on(error)
    return outcome


def put_off(held: Held, error: Exception) -> Outcome:
    """It cannot be told whether it was answered: it comes again a little later, uncounted."""
    _log.error("whether %s has been answered cannot be told, so it waits: %s", held.request.id, error)
    return Outcome(held, None, Retry(delay=_UNSAVED_DELAY, counted=False))


def success(held: Held, body: bytes, content_type: str, timings: Timings) -> Outcome:
    """The model gave an output."""
    answer = succeeded(held.request, body=body, content_type=content_type, timings=timings)
    return Outcome(held, answer, Answer())


def failure(held: Held, fault: Fault, failure: Failure, *, max_deliveries: int, timings: Timings) -> Outcome:
    """An attempt failed: by the retry policy it is tried again, or answered, or answered and dead-lettered."""
    message, count = held.request, held.delivery.delivery_count
    time_left = None if message.deadline is None else message.deadline - time.time()
    luck = random.random()  # noqa: S311 - nothing secret about it
    end = judge(fault, count, max_deliveries=max_deliveries, time_left=time_left, luck=luck)
    answer = None if isinstance(end, Retry) else failed(message, failure, timings=timings)
    return Outcome(held, answer, end, failure)


class Settler:
    """Settles outcomes in the background, several batches of them at once; settled() waits for all.

    *changed* is set after each of them: there may be reason to pull again.
    """

    def __init__(
        self,
        broker: Broker,
        store: BlobStore,
        hand: Hand,
        notifier: Notifier,
        *,
        claim_threshold: int,
        changed: asyncio.Event,
    ) -> None:
        self._broker = broker
        self._notifier = notifier
        self._store = store
        self._hand = hand
        self._changed = changed
        self._threshold = claim_threshold_for(broker.capabilities.max_message_nbytes, claim_threshold)
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._inboxes_return_until = 0.0
        self.settled_count = 0
        """How many messages have left the queue for good by this worker."""

    @property
    def behind(self) -> bool:
        """Whether more is waiting to be settled than the broker and the store keep up with."""
        return len(self._tasks) >= 2 * _AT_ONCE

    def note_outage(self) -> None:
        """The broker is unavailable just now. When it is back, callers open their inboxes again, and need a while."""
        self._inboxes_return_until = time.monotonic() + INBOXES_RETURN_WITHIN

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Settle *outcomes* in the background. Where an answer was stored meanwhile, it takes the outcome's place."""
        for one in outcomes:
            if one.held.stored is not None and not one.is_stored:
                one.give_way(one.held.stored)
        if outcomes:
            task = asyncio.create_task(self._settle(outcomes))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def hand_back(self, held: Iterable[Held]) -> None:
        """Back to the queue at once, uncounted: this delivery was not the message's fault."""
        self.settle([Outcome(one, None, Retry(delay=0.0, counted=False)) for one in held])

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()  # whoever waits because we were behind

    async def settled(self) -> None:
        """Wait until nothing is left to settle."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Settle nothing more: what is not settled comes back when its lock runs out, or the broker is closed."""
        await end(self._tasks)

    async def _settle(self, outcomes: Sequence[Outcome]) -> None:
        try:
            async with self._at_once:
                mine = await self._still_ours(outcomes)
                kept = [one for one in mine if one.held.kept]
                await self._save(kept)
                await self._tell([one for one in mine if one.answer is not None])
                await self._notify(kept)
                await self._finish(mine)
        except BrokerClosedError:
            _log.info("the broker was closed with %d message(s) unsettled; their locks run out", len(outcomes))
        except Exception:  # a fault here must not end the worker; the messages are safe in the queue
            _log.exception("settling %d message(s) failed; they come back when their locks run out", len(outcomes))
        finally:
            for one in outcomes:
                self._hand.release(one.held)

    async def _still_ours(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Without those whose lock is gone: another worker may hold such a message by now.

        Its answer will be as good as ours. A lock that has run out on our clock (this process was stopped, say) is
        asked about before anybody is told anything.
        """
        now = time.monotonic()
        doubtful = [one for one in outcomes if not one.held.lost and not one.held.is_locked(now)]
        if doubtful:
            await self._insist(partial(renew, self._broker), [one.held for one in doubtful])
        return [one for one in outcomes if not one.held.lost]

    async def _save(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            await asyncio.gather(*(self._save_one(one) for one in outcomes))

    async def _save_one(self, outcome: Outcome) -> None:
        held, answer = outcome.held, outcome.answer
        if answer is None or outcome.is_stored:
            return
        if held.lane is not None:
            await held.lane.flush()
        save = partial(save_result, self._store, held.request.id, answer, threshold=self._threshold, attempt=answer.id)
        try:
            stored = await self._insist_on_store(held, save)
        except BlobDamagedError as error:
            outcome.give_up_on(error)
        except BlobError as error:
            _put_off(outcome, f"its result cannot be saved: {error}")
        else:
            if stored.id != answer.id:
                outcome.give_way(stored)

    async def _tell(self, outcomes: Sequence[Outcome]) -> None:
        by_address: dict[str, list[Message]] = defaultdict(list)
        for one in outcomes:
            address = one.held.request.reply_to
            if address is None or one.answer is None or is_url(address):
                continue
            try:
                portable = await self._insist_on_store(one.held, partial(self._portable, one.held, one.answer))
            except BlobError as error:
                _put_off(one, f"its answer cannot be checked in: {error}")
            else:
                by_address[address].append(portable)
        await asyncio.gather(*(self._tell_one(address, answers) for address, answers in by_address.items()))

    async def _portable(self, held: Held, answer: Message) -> Message:
        """*answer* as it fits into a message. A large one that is stored already is not written a second time."""
        if len(answer.body) <= self._threshold:
            return answer
        # Whoever fetches it goes by the correlation id, and finds only a result of that name.
        if held.kept and answer.correlation_id == held.request.id:
            head = await head_of_result(self._store, held.request.id)
            if head.data_ref is not None:
                return msgspec.structs.replace(answer, body=b"", data_ref=head.data_ref)
        return await check_in(self._store, answer, threshold=self._threshold)

    async def _tell_one(self, address: str, answers: list[Message]) -> None:
        async def reply(batch: Sequence[Message]) -> None:
            await self._broker.reply(address, batch)

        def may_return(error: Exception) -> bool:
            return isinstance(error, InboxGoneError) and time.monotonic() < self._inboxes_return_until

        try:
            await insist(lambda: self._insist(reply, answers), within=INBOXES_RETURN_WITHIN, may_pass=may_return)
        except InboxGoneError:
            # Nobody waits any more. The work is done all the same, and running it again would help nobody.
            _log.info("%d answer(s) for %s, which is gone", len(answers), address)
            await self._drop_claims(answers)

    async def _notify(self, outcomes: Sequence[Outcome]) -> None:
        told = [(one, self._notifier.completed(one.held.request, one.answer)) for one in outcomes if one.answer]
        messages = [message for _, several in told for message in several]
        try:
            await self._insist(self._notifier.send, messages)
        except BrokerClosedError:
            raise
        except BrokerError as error:
            # Their results are there, so when they come again they are only told.
            for one, several in told:
                if several:
                    _put_off(one, f"the courier cannot be told of its result: {error}")

    async def _finish(self, outcomes: Sequence[Outcome]) -> None:
        for one in outcomes:
            one.held.closing = True
        done = [one.held.delivery for one in outcomes if isinstance(one.end, Answer)]
        lost = {delivery.lock_token for delivery in await self._insist(self._broker.complete, done)}
        self.settled_count += len(done) - len(lost)
        for one in outcomes:
            if isinstance(one.end, GiveUp) and one.failure is not None:
                await self._dead_letter(one.held.delivery, one.failure)
                self.settled_count += 1
        await self._abandon([one for one in outcomes if isinstance(one.end, Retry)])
        # Whoever holds by now what we had lost still needs its claim check, and so do dead letters.
        completed = [one.held.delivery for one in outcomes if isinstance(one.end, Answer) and not one.leaves_body]
        await self._drop_claims([delivery.message for delivery in completed if delivery.lock_token not in lost])

    async def _dead_letter(self, delivery: Delivery, failure: Failure) -> None:
        detail = f"{failure.message}\n{failure.detail}".strip()

        async def move(batch: Sequence[Delivery]) -> None:
            await self._broker.dead_letter(batch, reason=failure.code, detail=detail)

        _log.warning("dead-lettered %s: %s: %s", delivery.message.id, failure.code, failure.message)
        await self._insist(move, [delivery])

    async def _abandon(self, outcomes: Sequence[Outcome]) -> None:
        groups: dict[Retry, list[Delivery]] = defaultdict(list)
        for one in outcomes:
            if isinstance(one.end, Retry):
                groups[one.end].append(one.held.delivery)
                if one.failure is not None:
                    _tell_of_retry(one.held.delivery, one.failure, one.end)
        for retry, deliveries in groups.items():

            async def back(batch: Sequence[Delivery], retry: Retry = retry) -> None:
                await self._broker.abandon(batch, delay=retry.delay, counted=retry.counted)

            await self._insist(back, deliveries)

    async def _drop_claims(self, messages: Sequence[Message]) -> None:
        """Nobody will fetch these bodies any more; losing this race costs disk space only."""
        for message in messages:
            if message.data_ref is not None:
                try:
                    await drop(self._store, message)
                except BlobError as error:
                    _log.warning("the claim check of %s is left behind: %s", message.id, error)

    async def _insist_on_store(self, held: Held, write: Callable[[], Awaitable[T]]) -> T:
        """Call *write*; while the store takes nothing try again, until a lock's length has passed.

        What the model has made is in memory alone: without it the model would have to run again.
        """

        def may_pass(error: Exception) -> bool:
            return isinstance(error, BlobError) and not isinstance(error, BlobDamagedError) and not held.lost

        return await insist(write, within=self._broker.lock_duration, may_pass=may_pass)

    async def _insist(self, verb: Callable[[Sequence[T]], Awaitable[object]], batch: Sequence[T]) -> list[Delivery]:
        """Call *verb* for a lock's length, if need be; the deliveries that others hold by now."""

        async def noting(some: Sequence[T]) -> None:
            try:
                await verb(some)
            except BrokerUnavailableError:
                self.note_outage()
                raise

        lost = await insist_on_broker(noting, batch, within=self._broker.lock_duration)
        if lost:
            _log.warning("not settled, others have them: %s", ", ".join(one.message.id for one in lost))
        return lost


def _tell_of_retry(delivery: Delivery, failure: Failure, retry: Retry) -> None:
    _log.warning(
        "attempt %d of %s failed, the next one in %.1f s: %s: %s",
        *(delivery.delivery_count, delivery.message.id, retry.delay, failure.code, failure.message),
    )


def _put_off(outcome: Outcome, why: str) -> None:
    """Nobody further is told, nothing is completed, and the message comes again."""
    _log.error("%s is not completed yet: %s", outcome.held.request.id, why)
    outcome.answer, outcome.failure, outcome.end = None, None, Retry(delay=_UNSAVED_DELAY, counted=False)
