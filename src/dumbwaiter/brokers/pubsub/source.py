"""Pulls from one queue, for polling.py."""

from __future__ import annotations

from collections.abc import Sequence

from google.pubsub_v1 import types

from dumbwaiter.brokers.polling import Came
from dumbwaiter.brokers.pubsub.api import ANSWER_WITHIN, LARGEST_BATCH, Api, TimedOutError
from dumbwaiter.brokers.pubsub.holding import Holding
from dumbwaiter.brokers.pubsub.topics import Topics
from dumbwaiter.brokers.pubsub.wire import Arrived, read
from dumbwaiter.message import Delivery

LONG_POLL = 20.0
"""Seconds. Pub/Sub answers a little earlier than whoever asks would give up."""


class PubsubSource:
    """A queue of ours, as polling.Source."""

    at_once = 1
    largest = LARGEST_BATCH

    def __init__(self, api: Api, topics: Topics, holding: Holding, queue: str) -> None:
        self._api, self._topics, self._holding, self._queue = api, topics, holding, queue

    async def pull(self, lane: int, count: int, *, is_long: bool) -> list[Arrived]:
        return await pull(self._api, self._topics, self._queue, lane, count, wait=LONG_POLL if is_long else 0.0)

    async def accept(self, came: Sequence[Came[Arrived]]) -> list[Delivery]:
        return await self._holding.accept(self._queue, came)

    async def release(self, lane: int, came: Sequence[Arrived]) -> None:
        await self._holding.release(self._queue, lane, came)


async def pull(api: Api, topics: Topics, queue: str, part: int, count: int, *, wait: float) -> list[Arrived]:
    """Up to *count* messages of this *part* of *queue*; without *wait*, those that are at hand.

    Without it Pub/Sub may overlook some: only a pull that waits shows that there is nothing.
    """
    request = types.PullRequest.pb()(
        subscription=topics.subscription(queue, part), max_messages=count, return_immediately=not wait
    )
    if not wait:
        answer = await api.ask("pull", request, queue=queue, within=ANSWER_WITHIN)
    else:
        try:
            answer = await api.ask("pull", request, queue=queue, within=wait)
        except TimedOutError:
            return []
    return [read(one) for one in answer.received_messages]
