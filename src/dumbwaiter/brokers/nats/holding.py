"""Deliveries of one broker object: held, kept alive, settled and handed back.

A message is handed back as a copy in the lane that is served first, with the count of deliveries in a header, and then
acknowledged: only so is it known as ready, and only so can a delivery not count. A crash between the two leaves both;
the copy's id is made of the delivery, so that trying again does not double it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.brokers.leases import Lease, Leases
from dumbwaiter.brokers.nats.answers import NO_RESPONDERS, Question, status_of
from dumbwaiter.brokers.nats.headers import (
    COUNT,
    DETAIL,
    LONGEST_DETAIL,
    MSG_ID,
    REASON,
    SENT,
    Place,
    attributes_of,
    cut,
    encode,
    headers_nbytes,
    id_of,
    number,
    place_of,
    schedule_at,
)
from dumbwaiter.brokers.nats.layout import MSG_SIZE_ROOM, Names
from dumbwaiter.brokers.nats.queues import lane_of
from dumbwaiter.brokers.served import Received
from dumbwaiter.errors import BrokerError, BrokerUnavailableError, LockLostError
from dumbwaiter.message import Delivery, Message, new_id

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from dumbwaiter.brokers.nats.link import Link
    from dumbwaiter.brokers.nats.pulling import Arrived
    from dumbwaiter.brokers.nats.queues import Queues

_DONE, _GIVEN_UP, _ALIVE, _NOT_DONE = b"+ACK", b"+TERM", b"+WPI", b"-NAK"
_LONGEST_REASON = 500
_SPARE = 64
_NS = 1_000_000_000
_UNREAD = Message(id="unread")


class Held(msgspec.Struct, frozen=True, gc=False):
    """A delivery in the server: its *place*, and when its message was *sent* first (nanoseconds since the epoch)."""

    place: Place
    sent: int


class Holding:
    """What one broker object holds. *deliveries_of* reads envelopes, and dead-letters those that cannot be read."""

    def __init__(
        self,
        link: Link,
        queues: Queues,
        *,
        lock_duration: float,
        deliveries_of: Callable[[str, list[Received]], Awaitable[list[Delivery]]],
    ) -> None:
        self._link = link
        self._queues = queues
        self._lock_duration = lock_duration
        self._deliveries_of = deliveries_of
        self._leases: Leases[Held] = Leases(ended=self._on_ended, beat=self._on_beat)
        self._beside: set[asyncio.Task[None]] = set()

    # --- taking over ---

    async def accept(self, queue: str, arrived: list[Arrived]) -> list[Delivery]:
        """Hold what *arrived* from *queue*, but for what may be with others by now: it lay here unread for too long."""
        received: list[Received] = []
        leases: dict[str, Lease[Held]] = {}
        now = time.monotonic()
        for message, since in arrived:
            place = place_of(message.reply)
            if place is None:
                continue
            one = Received(
                attributes=attributes_of(message.headers),
                body=message.data,
                id=id_of(message.headers, place),
                lock_token=message.reply,
                locked_until=now + self._lock_duration,
                delivery_count=place.deliveries + number(message.headers, COUNT),
            )
            held = Held(place, number(message.headers, SENT) or place.stored_at)
            own_lock = self._queues.known_own_lock(queue, lane_of(message))
            lease = Lease(_unread(queue, one), held, own_lock=own_lock, alive_at=since)
            if lease.is_valid(now):
                received.append(one)
                # Held before it is read: what cannot be read is dead-lettered under the same lease.
                leases[message.reply] = lease
                self._leases.hold(lease)
        deliveries = await self._deliveries_of(queue, received)
        for delivery in deliveries:
            leases[delivery.lock_token].delivery = delivery
        return deliveries

    # --- settling ---

    async def complete(self, deliveries: Sequence[Delivery]) -> None:
        """As the contract says."""
        leases, lost = self._leases.take(deliveries, for_good=True)
        lost += await self._end(leases, [(lease.delivery.lock_token, _DONE, None) for lease in leases])
        if lost:
            raise LockLostError(lost)

    async def dead_letter(self, deliveries: Sequence[Delivery], reason: str, detail: str) -> None:
        """As the contract says."""
        leases, lost = self._leases.take(deliveries, for_good=True)
        messages = {delivery.lock_token: delivery.message for delivery in deliveries}
        questions: list[tuple[str, Question]] = []
        for lease in leases:
            # What was received may be no envelope; what is buried is the part of it that can be read.
            lease.delivery = msgspec.structs.replace(lease.delivery, message=messages[lease.delivery.lock_token])
            questions.append((lease.delivery.queue, self._burial(lease, reason, detail)))
        with self._restoring(leases):
            await self._publish(questions)
        word = b" ".join((_GIVEN_UP, reason.encode(errors="replace")[:_LONGEST_REASON]))
        lost += await self._end(leases, [(lease.delivery.lock_token, word, None) for lease in leases])
        if lost:
            raise LockLostError(lost)

    async def abandon(self, deliveries: Sequence[Delivery], delay: float, *, counted: bool) -> None:
        """As the contract says."""
        leases, lost = self._leases.take(deliveries, for_good=False)
        lost += await self._hand_back(leases, delay, counted=counted)
        if lost:
            raise LockLostError(lost)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """As the contract says."""
        leases, lost = self._leases.find(deliveries)
        asked_at = time.monotonic()
        if leases:
            answers = await self._link.ask([(lease.delivery.lock_token, _ALIVE, None) for lease in leases])
            self._check(answers)
            self._leases.confirm(leases, asked_at)
        else:
            self._link.client  # noqa: B018 - raises while there is no connection
        renewed: dict[str, Delivery] = {}
        until = time.monotonic() + self._lock_duration
        for lease in leases:
            if (delivery := self._leases.renew(lease, until)) is None:
                lost.append(lease.delivery)
            else:
                renewed[delivery.lock_token] = delivery
        kept = [renewed[delivery.lock_token] for delivery in deliveries if delivery.lock_token in renewed]
        if lost:
            raise LockLostError(lost, kept)
        return kept

    def lose_all(self) -> None:
        """Another server answers now: it may know nothing of what was delivered, and give it to others."""
        self._leases.lose()

    def give_back_later(self, deliveries: list[Delivery]) -> None:
        """Hand *deliveries* back, uncounted, while others go on."""
        self._spawn(partial(self.abandon, deliveries, 0.0, counted=False))

    async def close(self) -> None:
        """Hand back what is held, uncounted, as far as the connection still stands."""
        if self._beside:
            await asyncio.wait(self._beside)
        leases = [lease for lease in self._leases.release() if not lease.is_unsure]
        try:
            await self._hand_back(leases, 0.0, counted=False)
        except BrokerError:
            pass  # the server gives them to others when its own lock ends
        finally:
            self._leases.lose()

    async def _hand_back(self, leases: list[Lease[Held]], delay: float, *, counted: bool) -> list[Delivery]:
        """Hand the messages of *leases* back. Returns those that may be with others by now, as _end() does."""
        copied: list[tuple[str, Question]] = []
        words: list[Question] = []
        due = None
        if leases and delay > 0:
            with self._restoring(leases):
                due = await self._queues.due(leases[0].delivery.queue, delay)
        for lease in leases:
            copy = self._copy(lease, due, counted=counted)
            if copy is None:
                later = b' {"delay": %d}' % int(delay * _NS)
                words.append((lease.delivery.lock_token, _NOT_DONE + later if due else _NOT_DONE, None))
            else:
                copied.append((lease.delivery.queue, copy))
                words.append((lease.delivery.lock_token, _DONE, None))
        with self._restoring(leases):
            await self._publish(copied)
        return await self._end(leases, words)

    def _copy(self, lease: Lease[Held], due: float | None, *, counted: bool) -> Question | None:
        """The message of *lease* once more; None where the server cannot take that: then it comes back counted."""
        delivery, held = lease.delivery, lease.held
        names = self._queues.names(delivery.queue)
        headers, payload = encode(delivery.message)
        headers[COUNT] = str(delivery.delivery_count - (0 if counted else 1))
        headers[SENT] = str(held.sent)
        headers[MSG_ID] = f"%again:{held.place.sequence}:{held.place.deliveries}"  # no id of a producer's begins so
        subject = names.again
        if due is not None:
            if not self._queues.has_schedules:
                return None
            subject = schedule(headers, names, due, target=subject)
        largest = self._queues.max_payload - MSG_SIZE_ROOM
        return (subject, payload, headers) if headers_nbytes(headers) + len(payload) <= largest else None

    def _burial(self, lease: Lease[Held], reason: str, detail: str) -> Question:
        delivery, place = lease.delivery, lease.held.place
        headers, payload = encode(delivery.message)
        headers[COUNT] = str(delivery.delivery_count)
        headers[REASON] = cut(reason, _LONGEST_REASON)
        headers[MSG_ID] = f"%dead:{place.sequence}:{place.stored_at}"
        room = self._queues.max_payload - len(payload) - headers_nbytes(headers) - len(DETAIL) - _SPARE
        headers[DETAIL] = cut(detail, max(0, min(room, LONGEST_DETAIL)))
        return self._queues.names(delivery.queue).dead_subject, payload, headers

    async def _publish(self, questions: list[tuple[str, Question]]) -> None:
        by_queue: dict[str, list[Question]] = {}
        for queue, question in questions:
            by_queue.setdefault(queue, []).append(question)
        for queue, some in by_queue.items():
            await self._queues.publish(queue, some)

    async def _end(self, leases: list[Lease[Held]], words: list[Question]) -> list[Delivery]:
        """Say the last *words* on *leases*, one each, and have them confirmed.

        Nothing is said on those whose lock in the server may be over: it would settle the copy of the next holder.
        """
        with self._restoring(leases):
            self._link.client  # noqa: B018 - raises while there is no connection
        now = time.monotonic()
        lapsed = [lease.delivery for lease in leases if now >= lease.stands_until]
        words = [word for lease, word in zip(leases, words, strict=True) if now < lease.stands_until]
        if words:
            with self._restoring(leases, unsure=True):
                self._check(await self._link.ask(words))
        return lapsed

    def _check(self, answers: list[Msg]) -> None:
        if any(status_of(answer) == NO_RESPONDERS for answer in answers):
            raise BrokerUnavailableError(
                "JetStream does not take settlements now: the consumer has no leader, or is gone"
            )

    @contextlib.contextmanager
    def _restoring(self, leases: list[Lease[Held]], *, unsure: bool = False) -> Iterator[None]:
        """Hold *leases* again when what follows fails. *unsure*: nobody knows then whether it was done."""
        try:
            yield
        except BaseException:
            for lease in leases:
                lease.is_unsure |= unsure
                self._leases.hold(lease)
            raise

    def _on_ended(self, leases: list[Lease[Held]]) -> None:
        # Of those that are unsure a copy might bring back what is done. The server knows which to give to others.
        if sure := [lease for lease in leases if not lease.is_unsure]:
            self._spawn(partial(self._hand_back, sure, 0.0, counted=True))

    def _on_beat(self, leases: list[Lease[Held]]) -> None:
        self._spawn(partial(self._show_alive, leases))

    async def _show_alive(self, leases: list[Lease[Held]]) -> None:
        asked_at = time.monotonic()
        self._check(await self._link.ask([(lease.delivery.lock_token, _ALIVE, None) for lease in leases]))
        self._leases.confirm(leases, asked_at)

    def _spawn(self, work: Callable[[], Awaitable[object]]) -> None:
        async def quietly() -> None:
            # The server gives to others what could not be handed back, when its own lock ends.
            with contextlib.suppress(BrokerError):
                await work()

        task = asyncio.create_task(quietly())
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)


def schedule(headers: dict[str, str], names: Names, due: float, *, target: str) -> str:
    """Where a message is published that goes to *target* at *due*, seconds since the Unix epoch; *headers* say so."""
    headers["Nats-Schedule"] = schedule_at(due)
    headers["Nats-Schedule-Target"] = target
    return f"{names.later}.{new_id()}"


def _unread(queue: str, received: Received) -> Delivery:
    return Delivery(
        message=_UNREAD,
        queue=queue,
        lock_token=received.lock_token,
        locked_until=received.locked_until,
        delivery_count=received.delivery_count,
    )
