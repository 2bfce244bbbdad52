"""Deliveries of one broker object: held, renewed, settled and handed back.

SQS takes a receipt handle also when somebody else holds the message by then. So a handle is used only while the lock
that it came with surely stands: what is asked for later is refused here, and so is all that is asked for after SQS may
have handed the message back, whether it said so or not.

What SQS cannot do to a message is done by a copy: it is sent, and then the original is deleted. A crash between the two
leaves both, which is a message delivered twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from dumbwaiter.brokers.contract import Claim
from dumbwaiter.brokers.lease_holding import LeaseHolding
from dumbwaiter.brokers.leases import Lease
from dumbwaiter.brokers.served import Received
from dumbwaiter.brokers.sqs.api import Api, Failed, UnaskedError, worst_of
from dumbwaiter.brokers.sqs.names import DEAD
from dumbwaiter.brokers.sqs.queues import Queues
from dumbwaiter.brokers.sqs.wire import Arrived, Note, burial_of, entry_nbytes, entry_of, message_of, readable
from dumbwaiter.errors import BrokerUnavailableError, QueueNotFoundError
from dumbwaiter.message import Delivery
from dumbwaiter.policies.lanes import LANES

LONGEST_LOCK = 43_200
"""Seconds for which SQS keeps a message locked at most, renewed or not, from its receive on."""
LONGEST_DELAY = 900
"""Seconds for which SQS keeps a message back at most."""
_SPARE = 0.5
"""Seconds for which the lock in SQS stands at least when ours has ended: for a settlement's way there."""
_EARLY = 0.5
"""A message that is due within so many seconds is served at once."""
_LATEST = 366 * 86_400
"""A message that is due in more than so many seconds is served at once."""
_FEW = 100


def visibility_of(lock_duration: float) -> int:
    """For how many whole seconds SQS is asked to lock: a little longer than our own lock."""
    return min(math.ceil(lock_duration + _SPARE), LONGEST_LOCK)


def delay_of(seconds: float) -> int:
    """For how many whole seconds SQS is asked to keep a message back that has *seconds* to wait."""
    return max(0, min(math.ceil(seconds), LONGEST_DELAY))


class Held(msgspec.Struct, gc=False):
    """How a delivery is settled: in which queue of SQS (its *url*), and by which *handle*.

    *is_copied*: its copy has been sent already, and only the deletion failed.
    """

    url: str
    handle: str
    is_copied: bool = False


class Holding(LeaseHolding[Held]):
    """What one broker object holds."""

    def __init__(
        self,
        api: Api,
        queues: Queues,
        *,
        lock_duration: float,
        deliveries_of: Callable[[str, list[Received]], Awaitable[list[Delivery]]],
    ) -> None:
        super().__init__(lock_duration=lock_duration, deliveries_of=deliveries_of)
        self._api = api
        self._queues = queues
        self._limit = api.location.max_message_size
        self._visibility = visibility_of(lock_duration)
        self._owner = secrets.token_hex(6)
        self._count = 0
        self._of_id: dict[str, Lease[Held]] = {}

    # --- taking over ---

    async def accept(self, queue: str, came: Sequence[tuple[Arrived, str, float]]) -> list[Delivery]:
        """Hold what *came* from *queue*: each with the URL that it came from, and since when it is locked at least.

        What is not due yet is sent on its way again, and what may be with others by now is left alone.
        """
        received: list[Received] = []
        early: list[tuple[Arrived, str]] = []
        leases: dict[str, Lease[Held]] = {}
        for arrived, url, since in came:
            # Somebody else may have written that time; one that no message lives to see must not keep it on its way.
            if _EARLY < arrived.due - time.time() < _LATEST and readable(arrived) is not None:
                early.append((arrived, url))
                continue
            if self._is_double(arrived):
                continue
            one = self._received(arrived, since)
            lease = self._hold(queue, one, Held(url, arrived.handle), own_lock=None, since=since)
            if lease is not None:
                received.append(one)
                leases[one.lock_token] = self._of_id[arrived.id] = lease
        if early:
            self.spawn(self._hop(queue, early))
        return await self._read(queue, received, leases)

    def _received(self, arrived: Arrived, since: float) -> Received:
        self._count += 1
        return Received(
            attributes=arrived.attributes,
            body=arrived.body,
            id=arrived.id,
            lock_token=f"{self._owner}.{self._count:x}",
            locked_until=since + self._lock_duration,
            delivery_count=arrived.delivery_count,
            fault=arrived.fault,
        )

    def _is_double(self, arrived: Arrived) -> bool:
        """Whether SQS has handed out once more what is held here, as it may; then only its new handle matters."""
        lease = self._of_id.get(arrived.id)
        if lease is not None and self._leases.find([lease.delivery])[0]:
            lease.held.handle = arrived.handle
            return True
        if len(self._of_id) > 2 * len(self._leases) + _FEW:
            held = {id_: one for id_, one in self._of_id.items() if self._leases.find([one.delivery])[0]}
            self._of_id = held
        return False

    async def _hop(self, queue: str, early: Sequence[tuple[Arrived, str]]) -> None:
        """Have SQS keep messages back for another while, whose delay is longer than it keeps one."""
        for url in {url for _, url in early}:
            ours = [arrived for arrived, its in early if its == url]
            now = time.time()
            entries = [
                entry_of(message_of(one), count=one.count, due=one.due, delay=delay_of(one.due - now)) for one in ours
            ]
            failed = await self._queues.send(url, entries, queue=queue)
            sent = [one for i, one in enumerate(ours) if i not in failed]
            await self._api.batch("delete_message_batch", url, [{"ReceiptHandle": one.handle} for one in sent])

    # --- settling ---

    async def _remove(self, leases: list[Lease[Held]]) -> list[Delivery]:
        return await self._delete(leases)

    async def _bury(self, leases: list[Lease[Held]], reason: str, detail: str) -> list[Delivery]:
        def burial(lease: Lease[Held]) -> dict[str, Any]:
            note = Note(reason=reason, detail=detail, count=lease.delivery.delivery_count)
            return burial_of(lease.delivery.message, note, self._limit)

        with self._restoring(leases):
            for queue in {lease.delivery.queue for lease in leases}:
                dead = await self._queues.url(queue, DEAD)
                await self._copy([lease for lease in leases if lease.delivery.queue == queue], burial, to=dead)
        return await self._delete(leases)

    async def _keep_up(self, leases: list[Lease[Held]]) -> list[Lease[Held]]:
        return await self._change_visibility(leases, self._visibility)

    def claim_of(self, delivery: Delivery) -> Claim | None:
        """As the contract says."""
        found, _ = self._leases.find([delivery])
        if not found or found[0].is_unsure:
            return None
        held = found[0].held
        return Claim(delivery.queue, f"{held.url} {held.handle}", found[0].delivery.locked_until)

    async def take_back(self, claims: Sequence[Claim]) -> int:
        """As the contract says."""
        by_url: dict[str, list[dict[str, Any]]] = {}
        for queue in {claim.queue for claim in claims}:
            with contextlib.suppress(QueueNotFoundError):
                by_url.update((url, []) for url in await self._queues.urls(queue, range(LANES)))
        for claim in claims:
            url, _, handle = claim.token.partition(" ")
            if handle and url in by_url:
                by_url[url].append({"ReceiptHandle": handle, "VisibilityTimeout": 0})
        count = 0
        for url, entries in by_url.items():
            outcomes = await self._api.batch("change_message_visibility_batch", url, entries)
            if any(failed is not None and not failed.is_ours for failed in outcomes):
                raise BrokerUnavailableError("SQS did not hand back all that a dead process held")
            count += outcomes.count(None)
        return count

    async def release(self, url: str, came: Sequence[Arrived]) -> None:
        """Hand back at once what nobody holds, uncounted: it may come to one that waits no more again and again."""
        copies = [
            (one, entry_of(message, count=one.delivery_count - 1, due=one.due or None))
            for one in came
            if (message := readable(one)) is not None
        ]
        copies = [(one, copy) for one, copy in copies if entry_nbytes(copy) <= self._limit]
        failed = await self._queues.send(url, [copy for _, copy in copies])
        gone = [one.handle for i, (one, _) in enumerate(copies) if i not in failed]
        await self._api.batch("delete_message_batch", url, [{"ReceiptHandle": handle} for handle in gone])
        left = [one.handle for one in came if one.handle not in gone]
        again = [{"ReceiptHandle": handle, "VisibilityTimeout": 0} for handle in left]
        await self._api.batch("change_message_visibility_batch", url, again)

    async def _hand_back(self, leases: list[Lease[Held]], delay: float, *, counted: bool) -> list[Delivery]:
        plain = [lease for lease in leases if self._is_plain(lease, delay, counted=counted)]
        copied = [lease for lease in leases if not self._is_plain(lease, delay, counted=counted)]
        due = time.time() + delay if delay > LONGEST_DELAY else None

        def again(lease: Lease[Held]) -> dict[str, Any]:
            count = lease.delivery.delivery_count - (0 if counted else 1)
            return entry_of(lease.delivery.message, count=count, due=due, delay=delay_of(delay))

        with self._restoring(plain):
            with self._restoring(copied):
                for url in {lease.held.url for lease in copied}:
                    await self._copy([lease for lease in copied if lease.held.url == url], again, to=url)
            lost = await self._delete(copied)
        gone = await self._set_free(plain, min(math.ceil(delay), LONGEST_LOCK // 2))
        return lost + [lease.delivery for lease in gone]

    async def _set_free(self, leases: list[Lease[Held]], seconds: int) -> list[Lease[Held]]:
        """Have SQS hand them back. Those that it may have handed back when this fails are not held again: it would take
        their handles from us still when somebody else holds them. If it has not done it, their locks run out.
        """
        try:
            return await self._change_visibility(leases, seconds)
        except UnaskedError:
            for lease in leases:
                self._hold_again(lease)
            raise

    def _is_plain(self, lease: Lease[Held], delay: float, *, counted: bool) -> bool:
        """Whether SQS can hand it back itself; or must, for there may be nothing to copy, or no room for a copy."""
        delivery = lease.delivery
        if (counted and delay <= 0) or lease.is_unsure or not self._is_read(lease):
            return True
        return entry_nbytes(entry_of(delivery.message, count=delivery.delivery_count, due=1.0)) > self._limit

    async def _copy(
        self, leases: list[Lease[Held]], entry: Callable[[Lease[Held]], dict[str, Any]], *, to: str
    ) -> None:
        """Send copies of those of *leases* that have none yet. Raises BrokerUnavailableError when one was not taken."""
        missing = [lease for lease in leases if not lease.held.is_copied]
        if not missing:
            return
        failed = await self._queues.send(to, list(map(entry, missing)), queue=missing[0].delivery.queue)
        for i, lease in enumerate(missing):
            lease.held.is_copied = i not in failed
        if failed:
            raise BrokerUnavailableError(f"SQS took {len(missing) - len(failed)} of {len(missing)} messages; try again")

    async def _delete(self, leases: list[Lease[Held]]) -> list[Delivery]:
        """Delete the messages of *leases* for good. Returns the deliveries that are lost."""
        with self._restoring(leases, unsure=True):
            gone = await self._batch("delete_message_batch", leases, {})
        return [lease.delivery for lease in gone]

    async def _change_visibility(self, leases: Sequence[Lease[Held]], seconds: int) -> list[Lease[Held]]:
        """Lock the messages of *leases* for so many seconds from now. Returns the leases that are lost."""
        return await self._batch("change_message_visibility_batch", leases, {"VisibilityTimeout": seconds})

    async def _batch(self, verb: str, leases: Sequence[Lease[Held]], more: dict[str, Any]) -> list[Lease[Held]]:
        by_url: dict[str, list[Lease[Held]]] = {}
        for lease in leases:
            by_url.setdefault(lease.held.url, []).append(lease)

        async def do(url: str, ours: list[Lease[Held]]) -> list[Failed | None]:
            entries = [{"ReceiptHandle": lease.held.handle, **more} for lease in ours]
            return await self._api.batch(verb, url, entries, queue=ours[0].delivery.queue)

        answers = await asyncio.gather(*(do(url, ours) for url, ours in by_url.items()), return_exceptions=True)
        if errors := [answer for answer in answers if isinstance(answer, BaseException)]:
            raise worst_of(errors, len(answers))
        outcomes = [answer for answer in answers if not isinstance(answer, BaseException)]
        of_each = zip(itertools.chain(*by_url.values()), itertools.chain(*outcomes), strict=True)
        lost: list[Lease[Held]] = []
        for lease, failed in of_each:
            if failed is not None and not failed.is_ours:
                raise BrokerUnavailableError(f"SQS did not do all of a batch: {failed.code} {failed.text}".strip())
            if failed is not None:
                lost.append(lease)
        return lost

    def _on_ended(self, leases: list[Lease[Held]]) -> None:
        # Where this process was stopped meanwhile, the lock in SQS may be over as well, and others hold the message.
        spare = self._visibility - self._lock_duration - _SPARE / 2
        now = time.monotonic()
        if ours := [lease for lease in leases if now < lease.delivery.locked_until + spare]:
            self.spawn(self._change_visibility(ours, 0))
