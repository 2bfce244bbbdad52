"""A broker that writes down what is held through it, so that others can hand it back when this process is killed.

Where the product can tell all that a process holds, that is one claim, written before the first receive. Otherwise it
costs one small write to the page cache for each receive, renewal and hand-back, and none for what is completed or
dead-lettered: an old claim to such a message does nothing, and is struck out with the next write.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from dumbwaiter.brokers.contract import Broker, Claim, Inbox
from dumbwaiter.errors import LockLostError
from dumbwaiter.takeover.journal import Journal

if TYPE_CHECKING:
    from dumbwaiter.brokers.findings import Finding
    from dumbwaiter.message import DeadLetter, Delivery, Message, QueueStats
    from dumbwaiter.takeover.slots import Slot

_log = logging.getLogger("dumbwaiter.takeover")


def boot_clock_ahead() -> float:
    """By how many seconds the clock since the boot is ahead of time.monotonic(), which stands still in suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


class Recorder:
    """Keeps *journal* in *slot*. When that cannot be written any more it says so, once, and keeps nothing further."""

    def __init__(self, slot: Slot, journal: Journal) -> None:
        self._slot = slot
        self._journal = journal
        self._is_writing = True
        self._asked: set[str] = set()
        self._claimed: set[str] = set()

    def receiving(self, broker: Broker, queue: str) -> None:
        """*broker* is about to receive from *queue*: where one claim is enough for all that, it is written now."""
        if queue in self._asked or not self._is_writing:
            return
        self._asked.add(queue)
        claim = broker.claim_to_all(queue)
        if claim is not None:
            self._claimed.add(queue)
            self._journal.hold(f"all of {queue}", claim, until=claim.held_until)
            self._write()

    def hold(self, broker: Broker, deliveries: Iterable[Delivery]) -> None:
        """*deliveries* are held, or for longer."""
        if not self._is_writing:
            return
        news = [(one, broker.claim_of(one)) for one in deliveries if one.queue not in self._claimed]
        ahead = boot_clock_ahead()
        claims = [(delivery.lock_token, claim) for delivery, claim in news if claim is not None]
        for key, claim in claims:
            self._journal.hold(key, claim, until=claim.held_until + ahead)
        if claims:
            self._write()

    def settled(self, deliveries: Iterable[Delivery]) -> None:
        """*deliveries* are completed, dead-lettered or lost."""
        if self._is_writing:
            self._journal.drop([one.lock_token for one in deliveries])

    def abandoning(self, deliveries: Iterable[Delivery]) -> None:
        """*deliveries* are about to be handed back: nobody may do so again afterwards."""
        if self._is_writing and self._journal.drop([one.lock_token for one in deliveries]):
            self._write()

    def close(self) -> None:
        """Nothing is held any more, and the slot is free."""
        self._stop()
        self._slot.close()

    def _stop(self) -> None:
        self._is_writing = False
        # Nothing old may be left; and emptying takes no room on the disk.
        with contextlib.suppress(OSError):
            self._slot.empty()

    def _write(self) -> None:
        try:
            self._slot.write(*self._journal.next_write(time.clock_gettime(time.CLOCK_BOOTTIME)))
        except OSError as error:
            self._stop()
            _log.warning("what this process holds waits for its locks to end if it is killed: %s", error)


class RecordingBroker(Broker):
    """*broker*, which is open, and *recorder* beside it. Whoever opened *broker* closes it."""

    def __init__(self, broker: Broker, recorder: Recorder) -> None:
        super().__init__(broker.url, lock_duration=broker.lock_duration)
        self._broker = broker
        self._recorder = recorder
        self.capabilities = broker.capabilities

    # --- what is written down ---

    async def receive(self, queue: str, *, max_messages: int, max_wait: float) -> list[Delivery]:
        self._recorder.receiving(self._broker, queue)
        deliveries = await self._broker.receive(queue, max_messages=max_messages, max_wait=max_wait)
        self._recorder.hold(self._broker, deliveries)
        return deliveries

    async def renew_lock(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        try:
            renewed = await self._broker.renew_lock(deliveries)
        except LockLostError as error:
            self._recorder.settled(error.deliveries)
            self._recorder.hold(self._broker, error.renewed)
            raise
        self._recorder.hold(self._broker, renewed)
        return renewed

    async def complete(self, deliveries: Sequence[Delivery]) -> None:
        with self._settling(deliveries):
            await self._broker.complete(deliveries)

    async def dead_letter(self, deliveries: Sequence[Delivery], *, reason: str, detail: str = "") -> None:
        with self._settling(deliveries):
            await self._broker.dead_letter(deliveries, reason=reason, detail=detail)

    async def abandon(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, counted: bool = True) -> None:
        self._recorder.abandoning(deliveries)
        await self._broker.abandon(deliveries, delay=delay, counted=counted)

    @contextlib.contextmanager
    def _settling(self, deliveries: Sequence[Delivery]) -> Iterator[None]:
        try:
            yield
        except LockLostError:
            self._recorder.settled(deliveries)  # some are settled, and others hold the rest
            raise
        self._recorder.settled(deliveries)

    # --- what is not ---

    async def open(self) -> None:
        await self._broker.open()

    async def close(self) -> None:
        await self._broker.close()

    async def check(self) -> None:
        await self._broker.check()

    async def examine(self, *, longest_run: float | None = None) -> list[Finding]:
        return await self._broker.examine(longest_run=longest_run)

    def examine_unopened(self) -> list[Finding] | None:
        return self._broker.examine_unopened()

    async def _create_queue(self, queue: str) -> None:
        await self._broker.create_queue(queue)

    async def queues(self) -> list[str]:
        return await self._broker.queues()

    async def has_queue(self, queue: str) -> bool:
        return await self._broker.has_queue(queue)

    async def send(self, queue: str, messages: Sequence[Message], *, delay: float = 0.0) -> None:
        await self._broker.send(queue, messages, delay=delay)

    def claim_of(self, delivery: Delivery) -> Claim | None:
        return self._broker.claim_of(delivery)

    def claim_to_all(self, queue: str) -> Claim | None:
        return self._broker.claim_to_all(queue)

    async def take_back(self, claims: Sequence[Claim]) -> int:
        return await self._broker.take_back(claims)

    async def stats(self, queue: str) -> QueueStats:
        return await self._broker.stats(queue)

    async def position(self, queue: str, message_id: str) -> int | None:
        return await self._broker.position(queue, message_id)

    async def dead_letters(self, queue: str, *, limit: int = 100, after: str | None = None) -> list[DeadLetter]:
        return await self._broker.dead_letters(queue, limit=limit, after=after)

    async def is_dead_letter(self, queue: str, key: str) -> bool:
        return await self._broker.is_dead_letter(queue, key)

    async def redrive(self, queue: str, keys: Sequence[str] | None = None) -> int:
        return await self._broker.redrive(queue, keys)

    async def purge(self, queue: str, keys: Sequence[str] | None = None) -> int:
        return await self._broker.purge(queue, keys)

    async def open_inbox(self) -> Inbox:
        return await self._broker.open_inbox()

    async def reply(self, address: str, messages: Sequence[Message]) -> None:
        await self._broker.reply(address, messages)
