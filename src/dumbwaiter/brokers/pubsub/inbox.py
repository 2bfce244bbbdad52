"""Replies: a topic and its subscription for each inbox, deleted when it is closed.

The subscription of one whose owner died expires after a day, and then others sweep the topic.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from google.pubsub_v1 import types

from dumbwaiter.brokers.inboxes import PolledInbox, Pulled
from dumbwaiter.brokers.pubsub.api import LARGEST_BATCH, Api, TimedOutError
from dumbwaiter.brokers.pubsub.names import is_inbox, new_inbox
from dumbwaiter.brokers.pubsub.source import LONG_POLL
from dumbwaiter.brokers.pubsub.wire import message_of, read
from dumbwaiter.errors import BrokerError, QueueNotFoundError

MADE = "made"
"""The label of an inbox's topic that says when it was made, in seconds since the Unix epoch."""
EXPIRES_AFTER = 86_400
"""Seconds without a reader after which the subscription of an inbox expires: the least that Pub/Sub takes."""
_RETENTION = 600
_READ_LOCK = 10
_PAGE = 1000


class PubsubInbox(PolledInbox):
    """The replies of one topic."""

    def __init__(self, api: Api, *, require_open: Callable[[], None]) -> None:
        super().__init__(new_inbox(api.location.prefix), require_open=require_open)
        self._api = api

    async def open(self) -> None:
        """Make topic and subscription."""
        topic = self._api.topic(self.address)
        await self._api.ask("create_topic", types.Topic.pb()(name=topic, labels={MADE: str(int(time.time()))}))
        made = types.Subscription.pb()(
            name=self._api.subscription(self.address), topic=topic, ack_deadline_seconds=_READ_LOCK
        )
        made.message_retention_duration.seconds = _RETENTION
        made.expiration_policy.ttl.seconds = EXPIRES_AFTER
        await self._api.ask("create_subscription", made)

    async def close(self) -> None:
        if not self._is_open:
            return
        await self.leave()
        name, topic = self._api.subscription(self.address), self._api.topic(self.address)
        with contextlib.suppress(QueueNotFoundError):
            await self._api.ask("delete_topic", types.DeleteTopicRequest.pb()(topic=topic))
        with contextlib.suppress(QueueNotFoundError):
            await self._api.ask("delete_subscription", types.DeleteSubscriptionRequest.pb()(subscription=name))

    async def _pull(self) -> Pulled:
        request = types.PullRequest.pb()(subscription=self._api.subscription(self.address), max_messages=LARGEST_BATCH)
        try:
            answer = await self._api.ask("pull", request, within=LONG_POLL)
        except TimedOutError:
            return [], None
        came = [read(one) for one in answer.received_messages]
        told = self._acknowledge([one.ack_id for one in came]) if came else None
        return [(one.id, message_of(self.address, one)) for one in came], told

    async def _acknowledge(self, ack_ids: list[str]) -> None:
        request = types.AcknowledgeRequest.pb()(subscription=self._api.subscription(self.address), ack_ids=ack_ids)
        with contextlib.suppress(BrokerError):
            await self._api.ask("acknowledge", request)


async def sweep(api: Api, *, now: float) -> None:
    """Delete the topics of inboxes whose subscription has expired. Without the rights to do so they stay, unused."""
    token = ""
    with contextlib.suppress(BrokerError):
        while True:
            request = types.ListTopicsRequest.pb()(
                project=f"projects/{api.location.project}", page_size=_PAGE, page_token=token
            )
            answer = await api.ask("list_topics", request)
            for topic in answer.topics:
                if is_inbox(api.location.prefix, topic.name.rpartition("/")[2]) and is_old(topic.labels.get(MADE), now):
                    await _sweep_one(api, topic.name)
            token = answer.next_page_token
            if not token:
                return


async def _sweep_one(api: Api, topic: str) -> None:
    with contextlib.suppress(QueueNotFoundError):  # deleted meanwhile
        request = types.ListTopicSubscriptionsRequest.pb()(topic=topic)
        if not (await api.ask("list_topic_subscriptions", request)).subscriptions:
            await api.ask("delete_topic", types.DeleteTopicRequest.pb()(topic=topic))


def is_old(made: str | None, now: float) -> bool:
    """Whether an inbox that was *made* then surely has its subscription, or had it. One without label is not ours."""
    return made is not None and made.isascii() and made.isdigit() and now - int(made) > EXPIRES_AFTER
