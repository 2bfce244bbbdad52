"""Amazon SQS standard queues: ``sqs://eu-central-1?option=value``; see location.py for all of it.

Each queue is three of SQS, one a lane of priority, and one for its dead letters; see names.py. Whoever knows nothing of
dumbwaiter sends a body to ``dumbwaiter_<queue>``. holding.py keeps locks, and polling.py waits for messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION, Capabilities
from dumbwaiter.brokers.polled import PolledBroker
from dumbwaiter.brokers.polling import Reception
from dumbwaiter.brokers.sqs.api import Api
from dumbwaiter.brokers.sqs.dead import DeadLetters
from dumbwaiter.brokers.sqs.examining import examine
from dumbwaiter.brokers.sqs.holding import LONGEST_DELAY, LONGEST_LOCK, Holding, delay_of, visibility_of
from dumbwaiter.brokers.sqs.inbox import SqsInbox, sweep
from dumbwaiter.brokers.sqs.location import location_of
from dumbwaiter.brokers.sqs.names import all_of, is_inbox
from dumbwaiter.brokers.sqs.queues import Queues
from dumbwaiter.brokers.sqs.receiving import SqsSource
from dumbwaiter.brokers.sqs.wire import Arrived, entry_of, largest_body, message_nbytes
from dumbwaiter.errors import (
    BrokerUnavailableError,
    ConfigError,
    QueueNotFoundError,
)
from dumbwaiter.policies.lanes import lane_of

if TYPE_CHECKING:
    from dumbwaiter.brokers.findings import Finding
    from dumbwaiter.message import Message, QueueStats


class SqsBroker(PolledBroker[Holding, DeadLetters]):
    """Queues in Amazon SQS. See the module text for *url*, and docs/brokers/sqs.md for what SQS can and cannot do."""

    capabilities = Capabilities(
        durable=True,
        multi_process=True,
        ordered=False,
        priority=True,
        strict_priority=False,
        abandon_delay=True,
        send_delay=True,
        uncounted_abandon=True,
        deduplication=False,
        forgets_purged=True,
        portable_tokens=False,
        lists_queues=True,
        counts_ready=True,
        counts_locked=True,
        counts_dead=True,
        knows_gone_inboxes=False,  # for a minute after its deletion SQS may still take messages for a queue
        oldest_age=False,
        queue_position=False,
        max_message_nbytes=largest_body(),
        killed_holder="taken_back",
    )

    def __init__(self, url: str, *, lock_duration: float = DEFAULT_LOCK_DURATION) -> None:
        self._location = location_of(url)
        if not 0 < lock_duration < LONGEST_LOCK:
            raise ConfigError(f"a lock of {lock_duration:g} s: SQS locks for less than {LONGEST_LOCK} s (12 hours)")
        super().__init__(url, lock_duration=lock_duration)
        self.capabilities = msgspec.structs.replace(
            type(self).capabilities, max_message_nbytes=largest_body(self._location.max_message_size)
        )

    # --- open and close ---

    async def _build(self) -> None:
        self._api = Api(self._location)
        await self._api.open()
        self._queues = Queues(self._api)
        self._holding = Holding(
            self._api, self._queues, lock_duration=self.lock_duration, deliveries_of=self.deliveries_of
        )
        self._dead = DeadLetters(self._api, self._queues, spawn=self._holding.spawn)

    async def _try(self) -> None:
        """Ask for something that changes nothing and needs no right to a queue of ours."""
        with contextlib.suppress(QueueNotFoundError):
            await self._api.ask("get_queue_url", QueueName=f"{all_of(self._location.prefix)}_check")

    async def _let_go(self) -> None:
        await self._api.close()

    async def _examine(self, longest_run: float | None) -> list[Finding]:
        return await examine(self._api, self._queues, longest_run=longest_run)

    # --- queues ---

    async def _create_queue(self, queue: str) -> None:
        await self._queues.create(queue)

    async def _queue_names(self) -> list[str]:
        return await self._queues.names()

    async def _has_queue(self, queue: str) -> bool:
        return await self._queues.has(queue)

    def nbytes_of(self, message: Message) -> int:
        return message_nbytes(message)

    async def _send(self, queue: str, messages: Sequence[Message], delay: float) -> None:
        due = time.time() + delay if delay > LONGEST_DELAY else None
        by_lane: dict[int, list[dict[str, Any]]] = {}
        for message in messages:
            entry = entry_of(message, due=due, delay=delay_of(delay))
            by_lane.setdefault(lane_of(message.priority), []).append(entry)
        urls = dict(zip(by_lane, await self._queues.urls(queue, list(by_lane)), strict=True))
        sends = (self._queues.send(urls[lane], entries, queue=queue) for lane, entries in by_lane.items())
        failed = sum(map(len, await asyncio.gather(*sends)))
        if failed:
            raise BrokerUnavailableError(f"SQS took {len(messages) - failed} of {len(messages)} messages; send again")

    def _new_reception(self, queue: str) -> Reception[Arrived]:
        visibility = visibility_of(self.lock_duration)
        return Reception(
            SqsSource(self._api, self._queues, self._holding, queue, visibility=visibility),
            tolerance=(visibility - self.lock_duration) / 2,
            give_back=self._holding.give_back_later,
        )

    # --- looking ---

    async def _stats(self, queue: str) -> QueueStats:
        return await self._queues.stats(queue)

    # --- request-reply ---

    def _new_inbox(self) -> SqsInbox:
        return SqsInbox(self._api, require_open=self.require_open)

    async def _sweep(self, now: float) -> None:
        await sweep(self._api, self._queues, now=now)

    def _is_inbox(self, address: str) -> bool:
        return is_inbox(self._location.prefix, address)

    async def _answer(self, address: str, messages: Sequence[Message]) -> None:
        url = await self._queues.inbox_url(address)
        if await self._queues.send(url, [entry_of(message) for message in messages]):
            raise BrokerUnavailableError(f"SQS took not all of {len(messages)} replies; reply again")
