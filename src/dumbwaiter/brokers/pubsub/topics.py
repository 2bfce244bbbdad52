"""The topics and subscriptions of Pub/Sub that make up our queues: made, found and listed.

A topic forgets at once what is published while it has no subscription. So nothing is published before this process has
seen the subscription.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from typing import Any

from google.pubsub_v1 import types

from dumbwaiter.brokers.pubsub.api import Api, ExistsError, chunks
from dumbwaiter.brokers.pubsub.names import DEAD, PARTS, id_of, is_ours, queue_of
from dumbwaiter.brokers.pubsub.wire import LARGEST, LONGEST_DELAY, nbytes_of
from dumbwaiter.errors import BrokerError, BrokerUnavailableError, QueueNotFoundError
from dumbwaiter.message import QueueStats
from dumbwaiter.policies.lanes import NORMAL

ACK_DEADLINE = 10
"""Seconds for which a pull locks, in subscriptions that we make: as short as can be, for what Pub/Sub gives to a worker
that just died or was cut off comes back after that. A holder that lives makes it longer, or shorter.
"""
LOOK_LOCK = 60
"""The ack deadline of dead letters: for how long a look hides what it has seen, should its process die."""
RETENTION = 7 * 86_400
"""Seconds for which subscriptions that we make keep a message that nobody completes."""
DELETED_TOPIC = "_deleted-topic_"
"""What Pub/Sub calls the topic of a subscription that has none any more."""
MOST_ATTEMPTS = 100
"""Of the dead-letter policy: Pub/Sub counts no deliveries without one, and takes no larger number."""
_AT_ONCE = 8
_PAGE = 1000


def visibility_of(lock_duration: float) -> int:
    """For how many whole seconds Pub/Sub is asked to lock: a little longer than our own lock."""
    return max(1, min(math.ceil(lock_duration + 0.5), LONGEST_DELAY))


class Topics:
    """What is known of the topics and subscriptions in *api*."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._prefix = api.location.prefix
        self._deadlines: dict[tuple[str, int], int] = {}

    def id(self, queue: str, part: int) -> str:
        """What Pub/Sub calls this *part* of *queue*."""
        return id_of(self._prefix, queue, part)

    def subscription(self, queue: str, part: int) -> str:
        """Its full name."""
        return self._api.subscription(self.id(queue, part))

    async def ack_deadline(self, queue: str, part: int) -> int:
        """For how many seconds a pull from this *part* locks. Raises QueueNotFoundError."""
        known = self._deadlines.get((queue, part))
        return known if known is not None else (await self.look_up(queue, part)).ack_deadline_seconds

    async def look_up(self, queue: str, part: int) -> Any:
        """The Subscription as it is configured now. Raises QueueNotFoundError."""
        request = types.GetSubscriptionRequest.pb()(subscription=self.subscription(queue, part))
        try:
            found = await self._api.ask("get_subscription", request, queue=queue)
        except QueueNotFoundError:
            self._deadlines.pop((queue, part), None)
            raise
        self._deadlines[queue, part] = found.ack_deadline_seconds
        return found

    async def has(self, queue: str) -> bool:
        """Whether *queue* was created."""
        try:
            await self.look_up(queue, NORMAL)
        except QueueNotFoundError:
            return False
        return True

    async def create(self, queue: str) -> None:
        """Make what is missing; one that is there keeps the settings that somebody gave it.

        The dead letters come first, for the lanes' policies name them, and the usual lane last: where it is, all are.
        """
        lanes = [part for part in PARTS if part not in (DEAD, NORMAL)]
        await self._create(queue, DEAD)
        await asyncio.gather(*(self._create(queue, part) for part in lanes))
        await self._create(queue, NORMAL)

    async def _create(self, queue: str, part: int) -> None:
        with contextlib.suppress(QueueNotFoundError):
            self._require_topic(queue, part, await self.look_up(queue, part))
            return
        topic = self._api.topic(self.id(queue, part))
        with contextlib.suppress(ExistsError):
            await self._api.ask("create_topic", types.Topic.pb()(name=topic))
        with contextlib.suppress(ExistsError):
            await self._api.ask("create_subscription", self._new_subscription(queue, part, topic))
        await self.look_up(queue, part)

    def _require_topic(self, queue: str, part: int, subscription: Any) -> None:
        """A subscription outlives its topic, with what waits in it, and no new topic of that name leads to it."""
        if subscription.topic == DELETED_TOPIC:
            name = self.id(queue, part)
            raise BrokerUnavailableError(
                f"the topic {name} of the queue {queue!r} was deleted, so nothing can be sent to it. Once its "
                f"subscription is empty, delete that too (gcloud pubsub subscriptions delete {name}): both are then "
                "made anew"
            )

    def _new_subscription(self, queue: str, part: int, topic: str) -> Any:
        made = types.Subscription.pb()(
            name=self.subscription(queue, part),
            topic=topic,
            ack_deadline_seconds=LOOK_LOCK if part == DEAD else ACK_DEADLINE,
            enable_exactly_once_delivery=True,
        )
        made.message_retention_duration.seconds = RETENTION
        made.expiration_policy.SetInParent()  # without a time in it: never
        if part != DEAD:
            made.dead_letter_policy.dead_letter_topic = self._api.topic(self.id(queue, DEAD))
            made.dead_letter_policy.max_delivery_attempts = MOST_ATTEMPTS
        return made

    async def names(self) -> list[str]:
        """All queues that lie under the prefix, sorted."""
        found = (queue_of(self._prefix, one.name.rpartition("/")[2]) for one in await self.subscriptions())
        return sorted({queue for queue in found if queue is not None})

    async def subscriptions(self) -> list[Any]:
        """The Subscriptions of all parts of all queues under the prefix, as they are configured now."""
        ours: list[Any] = []
        token = ""
        while True:
            request = types.ListSubscriptionsRequest.pb()(
                project=f"projects/{self._api.location.project}", page_size=_PAGE, page_token=token
            )
            answer = await self._api.ask("list_subscriptions", request)
            ours += [one for one in answer.subscriptions if is_ours(self._prefix, one.name.rpartition("/")[2])]
            token = answer.next_page_token
            if not token:
                return ours

    async def stats(self, queue: str) -> QueueStats:
        """Pub/Sub itself counts nothing; Cloud Monitoring does, some minutes later."""
        await self.look_up(queue, NORMAL)
        return QueueStats(ready=None, locked=None, delayed=None, dead=None, oldest_age=None)

    async def publish(self, queue: str, part: int, messages: Sequence[Any]) -> None:
        """Publish *messages*, each a PubsubMessage. Raises what the first request raised that failed; what others hold
        may have been taken.
        """
        await self.ack_deadline(queue, part)
        await self.publish_to(self.id(queue, part), messages, queue=queue)

    async def publish_to(self, topic: str, messages: Sequence[Any], *, queue: str | None = None) -> None:
        """Publish *messages* to a topic by its id."""
        name = self._api.topic(topic)
        request = types.PublishRequest.pb()
        if len(messages) == 1:
            await self._api.ask("publish", request(topic=name, messages=messages), queue=queue)
            return
        gate = asyncio.Semaphore(_AT_ONCE)

        async def do(chunk: range) -> None:
            async with gate:
                await self._api.ask("publish", request(topic=name, messages=[messages[i] for i in chunk]), queue=queue)

        outcomes = await asyncio.gather(
            *map(do, chunks([nbytes_of(one) for one in messages], LARGEST)), return_exceptions=True
        )
        for error in outcomes:
            if isinstance(error, BaseException) and not isinstance(error, BrokerError):
                raise error
        for error in outcomes:
            if isinstance(error, BaseException):
                raise error
