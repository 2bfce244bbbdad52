"""Replies: a queue of SQS for each inbox, deleted when it is closed. One whose owner died is swept by others."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from dumbwaiter.brokers.inboxes import PolledInbox, Pulled
from dumbwaiter.brokers.sqs.api import ANSWER_WITHIN, LARGEST_BATCH, Api
from dumbwaiter.brokers.sqs.names import is_inbox, new_inbox
from dumbwaiter.brokers.sqs.queues import Queues
from dumbwaiter.brokers.sqs.receiving import LONG_POLL
from dumbwaiter.brokers.sqs.wire import message_of, read
from dumbwaiter.errors import BrokerError, QueueNotFoundError
from dumbwaiter.tasks import end, every

RETENTION = 3600
"""Seconds for which a reply waits that nobody reads."""
SEEN_TAG = "dumbwaiter:seen"
"""The tag that says when an inbox's owner was alive, in seconds since the Unix epoch."""
SIGN_EVERY = 600.0
SWEPT_AFTER = 3600.0
"""Seconds without a sign of life after which an inbox is deleted by others."""
_READ_LOCK = 60


class SqsInbox(PolledInbox):
    """The replies of one queue of SQS."""

    def __init__(self, api: Api, *, require_open: Callable[[], None]) -> None:
        super().__init__(new_inbox(api.location.prefix), require_open=require_open)
        self._api = api
        self._url = ""
        self._signing: asyncio.Task[Any] | None = None

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

    async def close(self) -> None:
        if self._is_open:
            await self.leave()
            with contextlib.suppress(QueueNotFoundError):
                await self._api.ask("delete_queue", QueueUrl=self._url)

    async def leave(self) -> None:
        await super().leave()
        await end([self._signing])

    async def _pull(self) -> Pulled:
        answer = await self._api.ask(
            "receive_message",
            within=LONG_POLL + ANSWER_WITHIN,
            QueueUrl=self._url,
            MaxNumberOfMessages=LARGEST_BATCH,
            WaitTimeSeconds=LONG_POLL,
            VisibilityTimeout=_READ_LOCK,
            MessageAttributeNames=["All"],
        )
        came = [read(raw) for raw in answer.get("Messages") or ()]
        told = self._delete([one.handle for one in came]) if came else None
        return [(one.id, message_of(one)) for one in came], told

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
