"""Deliveries of one broker object: held, kept alive, settled and handed back.

A message is handed back as a copy in the lane that is served first, with the count of deliveries in a header, and then
acknowledged: only so is it known as ready, and only so can a delivery not count. A crash between the two leaves both;
the copy's id is made of the delivery, so that trying again does not double it, and of a key that only this object
knows: the server drops a message whose id it has had, so whoever could guess the id could have the copy dropped.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.brokers.contract import Claim
from dumbwaiter.brokers.lease_holding import LeaseHolding
from dumbwaiter.brokers.leases import Lease
from dumbwaiter.brokers.nats.answers import NO_RESPONDERS, Question, status_of
from dumbwaiter.brokers.nats.headers import (
    COUNT,
    DETAIL,
    LONGEST_DETAIL,
    MSG_ID,
    REASON,
    SENT,
    TOKEN,
    Place,
    attributes_of,
    cut,
    encode,
    encode_within,
    headers_nbytes,
    id_of,
    is_reply_of,
    number,
    place_of,
    schedule_at,
)
from dumbwaiter.brokers.nats.layout import LANE_NAMES, MSG_SIZE_ROOM, Names
from dumbwaiter.brokers.nats.queues import lane_of
from dumbwaiter.brokers.served import Received
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.message import Delivery, new_id

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from dumbwaiter.brokers.nats.link import Link
    from dumbwaiter.brokers.nats.pulling import Arrived
    from dumbwaiter.brokers.nats.queues import Queues

_DONE, _GIVEN_UP, _ALIVE, _NOT_DONE = b"+ACK", b"+TERM", b"+WPI", b"-NAK"
_LONGEST_REASON = 500
_SPARE = 64
_VERDICT_ROOM = 2048
"""Of MSG_SIZE_ROOM, for what a dead letter says besides: reason, ids, and the end of the detail."""
_NAMED, _LONGEST_NAME = 8, 60
_NS = 1_000_000_000


class Held(msgspec.Struct, frozen=True, gc=False):
    """A delivery in the server: its *place*, and when its message was *sent* first (nanoseconds since the epoch).

    *lane* is that of the consumer that it is from, and *made* when this was made, as the server writes it.
    """

    place: Place
    sent: int
    lane: int
    made: str


class Holding(LeaseHolding[Held]):
    """What one broker object holds."""

    def __init__(
        self,
        link: Link,
        queues: Queues,
        *,
        lock_duration: float,
        deliveries_of: Callable[[str, list[Received]], Awaitable[list[Delivery]]],
    ) -> None:
        super().__init__(lock_duration=lock_duration, deliveries_of=deliveries_of)
        self._link = link
        self._queues = queues
        self._key = secrets.token_bytes(32)

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
            lane = lane_of(message)
            sent, made = number(message.headers, SENT) or place.stored_at, self._queues.known_made(queue, lane)
            held = Held(place, sent, lane, made)
            own_lock = self._queues.known_own_lock(queue, lane)
            if (lease := self._hold(queue, one, held, own_lock=own_lock, since=since)) is not None:
                received.append(one)
                leases[message.reply] = lease
        return await self._read(queue, received, leases)

    # --- settling ---

    async def _remove(self, leases: list[Lease[Held]]) -> list[Delivery]:
        leases, lost = await self._current(leases)
        return lost + await self._end(leases, [(lease.delivery.lock_token, _DONE, None) for lease in leases])

    async def _bury(self, leases: list[Lease[Held]], reason: str, detail: str) -> list[Delivery]:
        leases, lost = await self._current(leases)
        with self._restoring(leases):
            await self._publish([(lease.delivery.queue, self._burial(lease, reason, detail)) for lease in leases])
        word = b" ".join((_GIVEN_UP, reason.encode(errors="replace")[:_LONGEST_REASON]))
        return lost + await self._end(leases, [(lease.delivery.lock_token, word, None) for lease in leases])

    async def _keep_up(self, leases: list[Lease[Held]]) -> list[Lease[Held]]:
        every = leases
        leases, _ = await self._current(leases, are_taken=False)
        asked_at = time.monotonic()
        if leases:
            self._check(await self._link.ask([(lease.delivery.lock_token, _ALIVE, None) for lease in leases]))
            self._leases.confirm(leases, asked_at)
        else:
            self._link.client  # noqa: B018 - raises while there is no connection
        kept = {lease.delivery.lock_token for lease in leases}
        # Of the others the server tells nothing; the leases know.
        return [lease for lease in every if lease.delivery.lock_token not in kept]

    def claim_of(self, delivery: Delivery) -> Claim | None:
        """As the contract says."""
        found, _ = self._leases.find([delivery])
        if not found or found[0].is_unsure:
            return None
        return Claim(delivery.queue, delivery.lock_token, min(found[0].delivery.locked_until, found[0].stands_until))

    async def take_back(self, claims: Sequence[Claim]) -> int:
        """As the contract says. The server gives them to others itself, for there is nothing to make a copy of."""
        ours = [claim.token for claim in claims if is_reply_of(self._queues.names(claim.queue).stream, claim.token)]
        answers = await self._link.ask([(token, _NOT_DONE, None) for token in ours]) if ours else []
        return sum(status_of(answer) != NO_RESPONDERS for answer in answers)

    def lose_all(self) -> None:
        """Another server answers now: it may know nothing of what was delivered, and give it to others."""
        self._leases.lose()

    def _to_hand_back(self, leases: list[Lease[Held]]) -> list[Lease[Held]]:
        # Of those that are unsure a copy might bring back what is done. The server knows which to give to others.
        return [lease for lease in leases if not lease.is_unsure]

    async def _hand_back(self, leases: list[Lease[Held]], delay: float, *, counted: bool) -> list[Delivery]:
        copied: list[tuple[str, Question]] = []
        words: list[Question] = []
        due = None
        leases, lost = await self._current(leases)
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
        return lost + await self._end(leases, words)

    def _copy(self, lease: Lease[Held], due: float | None, *, counted: bool) -> Question | None:
        """The message of *lease* once more; None where it was not read, or the server cannot take that: then it comes
        back counted.
        """
        if not self._is_read(lease):
            return None
        delivery, held = lease.delivery, lease.held
        names = self._queues.names(delivery.queue)
        headers, payload = encode(delivery.message)
        headers[COUNT] = str(delivery.delivery_count - (0 if counted else 1))
        headers[SENT] = str(held.sent)
        headers[MSG_ID] = self._own_id("again", lease)
        subject = names.again
        if due is not None:
            if not self._queues.has_schedules:
                return None
            subject = schedule(headers, names, due, target=subject)
        largest = self._queues.max_payload - MSG_SIZE_ROOM
        return (subject, payload, headers) if headers_nbytes(headers) + len(payload) <= largest else None

    def _burial(self, lease: Lease[Held], reason: str, detail: str) -> Question:
        """The dead letter, of what the server takes: the body stands before attributes, and these before the detail."""
        delivery = lease.delivery
        headers, payload, left_out = encode_within(delivery.message, self._queues.max_payload - _VERDICT_ROOM)
        if left_out:
            named = ", ".join(name[:_LONGEST_NAME] for name in left_out[:_NAMED])
            detail = f"{detail}\n({len(left_out)} attributes were too long to be kept: {named})"
        headers[COUNT] = str(delivery.delivery_count)
        headers[REASON] = cut(reason, _LONGEST_REASON)
        headers[MSG_ID] = self._own_id("dead", lease)
        headers[TOKEN] = secrets.token_hex(16)
        room = self._queues.max_payload - len(payload) - headers_nbytes(headers) - len(DETAIL) - _SPARE
        headers[DETAIL] = cut(detail, max(0, min(room, LONGEST_DETAIL)))
        return self._queues.names(delivery.queue).dead_subject, payload, headers

    def _own_id(self, kind: str, lease: Lease[Held]) -> str:
        """What a copy of *lease* is called: the same whenever this object tries. No id of a producer of ours has such a
        percent sign.
        """
        place, stream = lease.held.place, self._queues.names(lease.delivery.queue).stream
        named = f"{kind} {stream} {place.sequence} {place.stored_at} {place.deliveries}"
        return f"%{kind}:{hashlib.blake2b(named.encode(), key=self._key, digest_size=16).hexdigest()}"

    async def _current(
        self, leases: list[Lease[Held]], *, are_taken: bool = True
    ) -> tuple[list[Lease[Held]], list[Delivery]]:
        """Those of *leases* whose consumers are still the ones that delivered them, and the other deliveries: lost.

        Words on these would settle what the consumers of the same names have delivered since then.
        """
        with self._restoring(leases if are_taken else []):
            made = {queue: await self._queues.made(queue) for queue in {lease.delivery.queue for lease in leases}}
        current, lost = [], []
        for lease in leases:
            now_made = made[lease.delivery.queue].get(LANE_NAMES[lease.held.lane], lease.held.made)
            if now_made == lease.held.made:
                current.append(lease)
            else:
                lost.append(lease.delivery)
        return current, lost

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

    def _on_ended(self, leases: list[Lease[Held]]) -> None:
        if sure := self._to_hand_back(leases):
            self.spawn(self._hand_back(sure, 0.0, counted=True))


def schedule(headers: dict[str, str], names: Names, due: float, *, target: str) -> str:
    """Where a message is published that goes to *target* at *due*, seconds since the Unix epoch; *headers* say so."""
    headers["Nats-Schedule"] = schedule_at(due)
    headers["Nats-Schedule-Target"] = target
    return f"{names.later}.{new_id()}"
