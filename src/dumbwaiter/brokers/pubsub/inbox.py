"""Replies: a topic and its subscription for each inbox, deleted when it is closed.

The subscription of one whose owner died expires after a day, and then others sweep the topic.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial

from google.pubsub_v1 import types

from dumbwaiter.brokers.contract import Inbox
from dumbwaiter.brokers.lines import Line
from dumbwaiter.brokers.pubsub.api import LARGEST_BATCH, Api, TimedOutError
from dumbwaiter.brokers.pubsub.names import is_inbox, new_inbox
from dumbwaiter.brokers.pubsub.source import LONG_POLL
from dumbwaiter.brokers.pubsub.wire import Arrived, message_of, read
from dumbwaiter.errors import BrokerClosedError, BrokerError, QueueNotFoundError
from dumbwaiter.message import Message
from dumbwaiter.tasks import end

MADE = "made"
"""The label of an inbox's topic that says when it was made, in seconds since the Unix epoch."""
EXPIRES_AFTER = 86_400
"""Seconds without a reader after which the subscription of an inbox expires: the least that Pub/Sub takes."""
_RETENTION = 600
_READ_LOCK = 10
_REMEMBERED = 10_000
_PAGE = 1000


class PubsubInbox(Inbox):
    """Replies that came, oldest first, until they are read."""

    def __init__(self, api: Api, *, require_open: Callable[[], None]) -> None:
        self.address = new_inbox(api.location.prefix)
        self._api = api
        self._require_broker = require_open
        self._is_open = True
        self._messages: deque[Message] = deque()
        self._came: OrderedDict[str, None] = OrderedDict()
        self._line: Line[Message] = Line(lambda: None, lambda items: self._messages.extendleft(reversed(items)))
        self._readers = 0
        self._reading: asyncio.Task[None] | None = None
        self._acknowledging: set[asyncio.Task[None]] = set()
        self._error: BrokerError | None = None

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

    async def receive(self, *, max_messages: int, max_wait: float) -> list[Message]:
        self._require_open()
        take = partial(self._take, max_messages)
        self._readers += 1
        try:
            if self._reading is None:
                self._error = None
                self._reading = asyncio.get_running_loop().create_task(self._read())
            wait = max_wait if max_messages > 0 else 0.0
            messages = await self._line.receive(self, take, wait, check_open=self._require_open)
        finally:
            self._readers -= 1
        self._require_open()
        if not messages and self._error is not None:
            raise self._error
        return messages

    async def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        with self._line.lock:
            self._line.dismiss(self)
        await end([self._reading, *self._acknowledging])
        name, topic = self._api.subscription(self.address), self._api.topic(self.address)
        with contextlib.suppress(QueueNotFoundError):
            await self._api.ask("delete_topic", types.DeleteTopicRequest.pb()(topic=topic))
        with contextlib.suppress(QueueNotFoundError):
            await self._api.ask("delete_subscription", types.DeleteSubscriptionRequest.pb()(subscription=name))

    def _take(self, limit: int) -> list[Message]:
        return [self._messages.popleft() for _ in range(min(limit, len(self._messages)))]

    def _require_open(self) -> None:
        self._require_broker()
        if not self._is_open:
            raise BrokerClosedError("this inbox is closed; open another with open_inbox()")

    async def _read(self) -> None:
        """Take what comes, as long as somebody waits for it."""
        request = types.PullRequest.pb()(subscription=self._api.subscription(self.address), max_messages=LARGEST_BATCH)
        try:
            while self._readers:
                with contextlib.suppress(TimedOutError):
                    answer = await self._api.ask("pull", request, within=LONG_POLL)
                    self._put([read(one) for one in answer.received_messages])
        except BrokerError as error:
            self._error = error
            with self._line.lock:
                self._line.dismiss(self)
        finally:
            self._reading = None

    def _put(self, arrived: list[Arrived]) -> None:
        if not arrived:
            return
        # Nobody waits for this; a reply that comes again because it failed is known.
        acknowledging = asyncio.get_running_loop().create_task(self._acknowledge([one.ack_id for one in arrived]))
        self._acknowledging.add(acknowledging)
        acknowledging.add_done_callback(self._acknowledging.discard)
        with self._line.lock:
            for one in arrived:
                if one.id not in self._came:
                    self._came[one.id] = None
                    self._messages.append(message_of(self.address, one))
            while len(self._came) > _REMEMBERED:
                self._came.popitem(last=False)
            self._line.changed()

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
