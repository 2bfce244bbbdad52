"""The queues of SQS that make up ours: made, found, listed and counted."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from dumbwaiter.brokers.sqs.api import Api, RefusedError
from dumbwaiter.brokers.sqs.names import DEAD, PARTS, all_of, name_of, queue_of
from dumbwaiter.brokers.sqs.wire import entry_nbytes
from dumbwaiter.errors import BrokerUnavailableError, MessageTooLargeError, QueueNotFoundError
from dumbwaiter.message import QueueStats
from dumbwaiter.policies.lanes import NORMAL

RETENTION = 14 * 86_400
"""Seconds for which queues that we make keep a message: as long as SQS does at most."""
QUEUE_TAG = "dumbwaiter:queue"
"""The tag that holds a queue's true name."""
READY, LOCKED, DELAYED = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


_REMEMBERED = 1000


class Queues:
    """What is known of the queues in *api*."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._prefix = api.location.prefix
        self._urls: dict[tuple[str, int], str] = {}
        self._inboxes: OrderedDict[str, str] = OrderedDict()

    async def url(self, queue: str, part: int) -> str:
        """The URL of this *part* of *queue*, which never changes. Raises QueueNotFoundError."""
        known = self._urls.get((queue, part))
        if known is None:
            known = await self.look_up(queue, part)
        return known

    async def urls(self, queue: str, parts: Sequence[int] = PARTS) -> list[str]:
        """Those of several *parts*."""
        missing = [part for part in parts if (queue, part) not in self._urls]
        await asyncio.gather(*(self.look_up(queue, part) for part in missing))
        return [self._urls[queue, part] for part in parts]

    async def look_up(self, queue: str, part: int) -> str:
        """As url(), asked for now."""
        answer = await self._api.ask("get_queue_url", queue=queue, QueueName=name_of(self._prefix, queue, part))
        url: str = answer["QueueUrl"]
        self._urls[queue, part] = url
        return url

    async def inbox_url(self, address: str) -> str:
        """The URL of the inbox at *address*. Raises QueueNotFoundError when it is gone."""
        if (known := self._inboxes.get(address)) is not None:
            self._inboxes.move_to_end(address)
            return known
        url: str = (await self._api.ask("get_queue_url", QueueName=address))["QueueUrl"]
        self._inboxes[address] = url
        if len(self._inboxes) > _REMEMBERED:
            self._inboxes.popitem(last=False)
        return url

    async def create(self, queue: str) -> None:
        """Make what is missing, the usual lane last: where it is, all of them are."""
        await asyncio.gather(*(self._create(queue, part) for part in PARTS if part != NORMAL))
        await self._create(queue, NORMAL)

    async def _create(self, queue: str, part: int) -> None:
        try:
            await self.look_up(queue, part)  # one that is there keeps the settings that somebody gave it
        except QueueNotFoundError:
            answer = await self._api.ask(
                "create_queue",
                QueueName=name_of(self._prefix, queue, part),
                Attributes={"MessageRetentionPeriod": str(RETENTION)},
                tags={QUEUE_TAG: queue},
            )
            self._urls[queue, part] = answer["QueueUrl"]

    async def has(self, queue: str) -> bool:
        """Whether *queue* was created."""
        try:
            await self.look_up(queue, NORMAL)
        except QueueNotFoundError:
            return False
        return True

    async def names(self) -> list[str]:
        """All queues that lie under the prefix, sorted."""
        found: list[str] = []
        unread: list[str] = []
        for url in await self.list_urls(all_of(self._prefix)):
            name, is_one = queue_of(self._prefix, url.rpartition("/")[2])
            if name is not None:
                found.append(name)
            elif is_one:
                unread.append(url)
        tags = await asyncio.gather(*map(self._true_name, unread))
        return sorted({*found, *(tag for tag in tags if tag)})

    async def _true_name(self, url: str) -> str | None:
        try:
            answer = await self._api.ask("list_queue_tags", QueueUrl=url)
        except QueueNotFoundError:
            return None  # deleted between the two looks
        tag: str | None = (answer.get("Tags") or {}).get(QUEUE_TAG)
        return tag

    async def list_urls(self, prefix: str) -> list[str]:
        """The URLs of all queues in SQS whose names begin so."""
        urls: list[str] = []
        more: dict[str, Any] = {}
        while True:
            answer = await self._api.ask("list_queues", QueueNamePrefix=prefix, MaxResults=1000, **more)
            urls += answer.get("QueueUrls") or ()
            if not answer.get("NextToken"):
                return urls
            more = {"NextToken": answer["NextToken"]}

    async def stats(self, queue: str) -> QueueStats:
        """The counts that SQS gives, which lag up to a minute."""
        urls = await self.urls(queue)
        answers = await asyncio.gather(*(self.attributes(url, (READY, LOCKED, DELAYED), queue) for url in urls))
        counts = [[int(answer[name]) for name in (READY, LOCKED, DELAYED)] for answer in answers]
        dead = sum(counts.pop(PARTS.index(DEAD)))
        ready, locked, delayed = (sum(column) for column in zip(*counts, strict=True))
        return QueueStats(ready=ready, locked=locked, delayed=delayed, dead=dead, oldest_age=None)

    async def attributes(self, url: str, names: Sequence[str], queue: str | None = None) -> dict[str, str]:
        """These attributes of one queue of SQS, as far as it has them."""
        answer = await self._api.ask("get_queue_attributes", queue=queue, QueueUrl=url, AttributeNames=list(names))
        attributes: dict[str, str] = answer.get("Attributes") or {}
        return attributes

    async def send(self, url: str, entries: Sequence[dict[str, Any]], *, queue: str | None = None) -> list[int]:
        """Send *entries* of entry_of(). Returns which of them were not taken, and may be now.

        Raises MessageTooLargeError when one is larger than that queue takes; BrokerUnavailableError when none was
        taken.
        """
        try:
            outcomes = await self._api.batch("send_message_batch", url, entries, queue=queue, nbytes_of=entry_nbytes)
        except RefusedError as error:
            if error.code in ("InvalidParameterValue", "BatchRequestTooLong"):
                await self._check_sizes(url, entries)
            raise
        failed = [i for i, outcome in enumerate(outcomes) if outcome is not None]
        if any(outcome.is_ours for outcome in outcomes if outcome is not None):
            await self._check_sizes(url, entries)
            codes = {outcome.code: outcome.text for outcome in outcomes if outcome is not None and outcome.is_ours}
            raise BrokerUnavailableError(f"SQS refuses to take a message: {codes}")
        return failed

    async def _check_sizes(self, url: str, entries: Sequence[dict[str, Any]]) -> None:
        """Raise MessageTooLargeError if that is why SQS refused one of *entries*: a queue may have a limit below."""
        attributes = await self.attributes(url, ["MaximumMessageSize"])
        limit = int(attributes.get("MaximumMessageSize", self._api.location.max_message_size))
        for entry in entries:
            if (nbytes := entry_nbytes(entry)) > limit:
                raise MessageTooLargeError(nbytes, limit)
