"""Replies: a queue of SQS for each inbox, deleted when it is closed. One whose owner died is swept by others."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from dumbwaiter.brokers.contract import Inbox
from dumbwaiter.brokers.lines import Line
from dumbwaiter.brokers.sqs.api import ANSWER_WITHIN, LARGEST_BATCH, Api
from dumbwaiter.brokers.sqs.names import is_inbox, new_inbox
from dumbwaiter.brokers.sqs.queues import Queues
from dumbwaiter.brokers.sqs.receiving import LONG_POLL
from dumbwaiter.brokers.sqs.wire import Arrived, message_of, read
from dumbwaiter.errors import BrokerClosedError, BrokerError, QueueNotFoundError
from dumbwaiter.message import Message
from dumbwaiter.tasks import end, every

RETENTION = 3600
"""Seconds for which a reply waits that nobody reads."""
SEEN_TAG = "dumbwaiter:seen"
"""The tag that says when an inbox's owner was alive, in seconds since the Unix epoch."""
SIGN_EVERY = 600.0
SWEPT_AFTER = 3600.0
"""Seconds without a sign of life after which an inbox is deleted by others."""
_READ_LOCK = 60
_REMEMBERED = 10_000


class SqsInbox(Inbox):
    """Replies that came, oldest first, until they are read."""

    def __init__(self, api: Api, *, require_open: Callable[[], None]) -> None:
        self.address = new_inbox(api.location.prefix)
        self._api = api
        self._url = ""
        self._require_broker = require_open
        self._is_open = True
        self._messages: deque[Message] = deque()
        self._came: OrderedDict[str, None] = OrderedDict()
        self._line: Line[Message] = Line(lambda: None, lambda items: self._messages.extendleft(reversed(items)))
        self._readers = 0
        self._reading: asyncio.Task[None] | None = None
        self._signing: asyncio.Task[Any] | None = None
        self._deleting: set[asyncio.Task[None]] = set()
        self._error: BrokerError | None = None

    async def open(self) -> None:
        """Make the queue."""
        answer = await self._api.ask(
            "create_queue",
            QueueName=self.address,
            Attributes={"MessageRetentionPeriod": str(RETENTION)},
            tags={SEEN_TAG: _now()},
        )
        self._url = answer["QueueUrl"]
        self._signing = asyncio.get_running_loop().create_task(every(SIGN_EVERY, self._sign))

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
        if self._is_open:
            await self.leave()
            with contextlib.suppress(QueueNotFoundError):
                await self._api.ask("delete_queue", QueueUrl=self._url)

    async def leave(self) -> None:
        """Send readers away: this inbox is closed."""
        self._is_open = False
        with self._line.lock:
            self._line.dismiss(self)
        await end([self._reading, self._signing, *self._deleting])

    def _take(self, limit: int) -> list[Message]:
        return [self._messages.popleft() for _ in range(min(limit, len(self._messages)))]

    def _require_open(self) -> None:
        self._require_broker()
        if not self._is_open:
            raise BrokerClosedError("this inbox is closed; open another with open_inbox()")

    async def _read(self) -> None:
        """Take what comes, as long as somebody waits for it."""
        try:
            while self._readers:
                answer = await self._api.ask(
                    "receive_message",
                    within=LONG_POLL + ANSWER_WITHIN,
                    QueueUrl=self._url,
                    MaxNumberOfMessages=LARGEST_BATCH,
                    WaitTimeSeconds=LONG_POLL,
                    VisibilityTimeout=_READ_LOCK,
                    MessageAttributeNames=["All"],
                )
                self._put([read(raw) for raw in answer.get("Messages") or ()])
        except BrokerError as error:
            self._error = error
            with self._line.lock:
                self._line.dismiss(self)
        finally:
            self._reading = None

    def _put(self, arrived: list[Arrived]) -> None:
        if not arrived:
            return
        # Nobody waits for the deletion; a reply that comes again because it failed is known.
        deleting = asyncio.get_running_loop().create_task(self._delete([one.handle for one in arrived]))
        self._deleting.add(deleting)
        deleting.add_done_callback(self._deleting.discard)
        with self._line.lock:
            for one in arrived:
                if one.id not in self._came:
                    self._came[one.id] = None
                    self._messages.append(message_of(one))
            while len(self._came) > _REMEMBERED:
                self._came.popitem(last=False)
            self._line.changed()

    async def _delete(self, handles: list[str]) -> None:
        with contextlib.suppress(BrokerError):
            await self._api.batch("delete_message_batch", self._url, [{"ReceiptHandle": handle} for handle in handles])

    async def _sign(self) -> None:
        with contextlib.suppress(BrokerError):
            await self._api.ask("tag_queue", QueueUrl=self._url, Tags={SEEN_TAG: _now()})


async def sweep(api: Api, queues: Queues, *, now: float) -> None:
    """Delete the inboxes whose owners are dead. Without the rights to do so they stay, and cost nothing."""
    prefix = api.location.prefix
    with contextlib.suppress(BrokerError):
        for url in await queues.list_urls(f"{prefix}__"):
            if not is_inbox(prefix, url.rpartition("/")[2]):
                continue
            with contextlib.suppress(QueueNotFoundError):  # deleted meanwhile
                tags = (await api.ask("list_queue_tags", QueueUrl=url)).get("Tags") or {}
                if is_abandoned(tags.get(SEEN_TAG), now):
                    await api.ask("delete_queue", QueueUrl=url)


def is_abandoned(seen: str | None, now: float) -> bool:
    """Whether an inbox whose owner was *seen* alive last then may be deleted. One without that tag is not ours."""
    return seen is not None and seen.isascii() and seen.isdigit() and now - int(seen) > SWEPT_AFTER


def _now() -> str:
    return str(int(time.time()))
