"""Receives from one queue of ours, for polling.py: as many requests of ten messages at once as that takes."""

from __future__ import annotations

from collections.abc import Sequence

from dumbwaiter.brokers.polling import Came
from dumbwaiter.brokers.sqs.api import ANSWER_WITHIN, LARGEST_BATCH, Api
from dumbwaiter.brokers.sqs.holding import Holding
from dumbwaiter.brokers.sqs.queues import Queues
from dumbwaiter.brokers.sqs.wire import Arrived, read
from dumbwaiter.message import Delivery

LONG_POLL = 20
"""Seconds; no more is possible."""


class SqsSource:
    """A queue of ours, as polling.Source; each message is locked for *visibility* whole seconds."""

    at_once = 8
    largest = LARGEST_BATCH

    def __init__(self, api: Api, queues: Queues, holding: Holding, queue: str, *, visibility: int) -> None:
        self._api, self._queues, self._holding, self._queue = api, queues, holding, queue
        self._visibility = visibility

    async def pull(self, lane: int, count: int, *, is_long: bool) -> list[Arrived]:
        wait = LONG_POLL if is_long else 0
        answer = await self._api.ask(
            "receive_message",
            queue=self._queue,
            within=wait + ANSWER_WITHIN,
            QueueUrl=await self._queues.url(self._queue, lane),
            MaxNumberOfMessages=count,
            WaitTimeSeconds=wait,
            VisibilityTimeout=self._visibility,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )
        return [read(raw) for raw in answer.get("Messages") or ()]

    async def accept(self, came: Sequence[Came[Arrived]]) -> list[Delivery]:
        placed = [(one, await self._queues.url(self._queue, lane), since) for one, lane, since in came]
        return await self._holding.accept(self._queue, placed)

    async def release(self, lane: int, came: Sequence[Arrived]) -> None:
        await self._holding.release(await self._queues.url(self._queue, lane), came)
