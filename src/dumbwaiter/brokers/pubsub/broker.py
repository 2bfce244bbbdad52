"""Google Cloud Pub/Sub: ``pubsub://my-project?option=value``; see location.py for all of it.

Each queue is three topics with one exactly-once subscription each, one a lane of priority, and one more of both for its
dead letters; see names.py. Whoever knows nothing of dumbwaiter publishes a body to the topic ``dumbwaiter.<queue>``.
holding.py keeps locks, and polling.py waits for messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from google.pubsub_v1 import types

from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION, Capabilities
from dumbwaiter.brokers.polled import PolledBroker
from dumbwaiter.brokers.polling import Reception
from dumbwaiter.brokers.pubsub.api import Api
from dumbwaiter.brokers.pubsub.dead import DeadLetters
from dumbwaiter.brokers.pubsub.examining import examine
from dumbwaiter.brokers.pubsub.holding import Holding
from dumbwaiter.brokers.pubsub.inbox import PubsubInbox, sweep
from dumbwaiter.brokers.pubsub.location import location_of
from dumbwaiter.brokers.pubsub.names import is_inbox
from dumbwaiter.brokers.pubsub.settling import Settling
from dumbwaiter.brokers.pubsub.source import PubsubSource
from dumbwaiter.brokers.pubsub.topics import Topics, visibility_of
from dumbwaiter.brokers.pubsub.wire import LARGEST_BODY, message_nbytes, outgoing
from dumbwaiter.errors import QueueNotFoundError
from dumbwaiter.policies.lanes import lane_of

if TYPE_CHECKING:
    from dumbwaiter.brokers.findings import Finding
    from dumbwaiter.brokers.pubsub.wire import Arrived
    from dumbwaiter.message import Message, QueueStats


class PubsubBroker(PolledBroker[Holding, DeadLetters]):
    """Queues in Pub/Sub. See the module text for *url*, and docs/brokers/pubsub.md for what it can and cannot do."""

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
        counts_ready=False,
        counts_locked=False,
        counts_dead=False,
        knows_gone_inboxes=False,  # for a while after its deletion Pub/Sub may still take messages for a topic
        oldest_age=False,
        queue_position=False,
        max_message_nbytes=LARGEST_BODY,
        killed_holder="taken_back",
    )

    def __init__(self, url: str, *, lock_duration: float = DEFAULT_LOCK_DURATION) -> None:
        self._location = location_of(url)
        super().__init__(url, lock_duration=lock_duration)

    # --- open and close ---

    async def _build(self) -> None:
        self._api = Api(self._location)
        self._api.open()
        self._topics = Topics(self._api)
        settling = Settling(self._api, self._topics)
        self._holding = Holding(
            self._topics, settling, lock_duration=self.lock_duration, deliveries_of=self.deliveries_of
        )
        self._dead = DeadLetters(self._api, self._topics, settling, spawn=self._holding.spawn)

    async def _try(self) -> None:
        """Ask for something that changes nothing."""
        name = self._api.subscription(f"{self._location.prefix}~check")
        with contextlib.suppress(QueueNotFoundError):
            await self._api.ask("get_subscription", types.GetSubscriptionRequest.pb()(subscription=name))

    async def _let_go(self) -> None:
        await self._api.close()

    async def _examine(self, longest_run: float | None) -> list[Finding]:
        return await examine(self._api, self._topics, lock=self.lock_duration, longest_run=longest_run)

    # --- queues ---

    async def _create_queue(self, queue: str) -> None:
        await self._topics.create(queue)

    async def _queue_names(self) -> list[str]:
        return await self._topics.names()

    async def _has_queue(self, queue: str) -> bool:
        return await self._topics.has(queue)

    def nbytes_of(self, message: Message) -> int:
        return message_nbytes(message)

    async def _send(self, queue: str, messages: Sequence[Message], delay: float) -> None:
        due = time.time() + delay if delay > 0 else 0.0
        by_lane: dict[int, list[Any]] = {}
        for message in messages:
            by_lane.setdefault(lane_of(message.priority), []).append(outgoing(message, due=due))
        if len(by_lane) == 1:
            ((lane, sent),) = by_lane.items()
            await self._topics.publish(queue, lane, sent)
        else:
            await asyncio.gather(*(self._topics.publish(queue, lane, sent) for lane, sent in by_lane.items()))

    def _new_reception(self, queue: str) -> Reception[Arrived]:
        source = PubsubSource(self._api, self._topics, self._holding, queue)
        tolerance = max(0.1, (visibility_of(self.lock_duration) - self.lock_duration) / 2)
        return Reception(source, tolerance=tolerance, give_back=self._holding.give_back_later)

    # --- looking ---

    async def _stats(self, queue: str) -> QueueStats:
        return await self._topics.stats(queue)

    # --- request-reply ---

    def _new_inbox(self) -> PubsubInbox:
        return PubsubInbox(self._api, require_open=self.require_open)

    async def _sweep(self, now: float) -> None:
        await sweep(self._api, now=now)

    def _is_inbox(self, address: str) -> bool:
        return is_inbox(self._location.prefix, address)

    async def _answer(self, address: str, messages: Sequence[Message]) -> None:
        await self._topics.publish_to(address, [outgoing(message) for message in messages])
