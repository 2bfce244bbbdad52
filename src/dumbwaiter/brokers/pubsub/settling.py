"""Ack ids, settled: in as few requests as that takes, and never more than Pub/Sub takes in one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from google.pubsub_v1 import types

from dumbwaiter.brokers.pubsub.api import LARGEST_BATCH, Api
from dumbwaiter.brokers.pubsub.topics import Topics


class Settling:
    """What can be done with ack ids of one *part* of a queue. Each way returns those whose lock is not theirs any more.

    They raise BrokerUnavailableError, and QueueNotFoundError.
    """

    def __init__(self, api: Api, topics: Topics) -> None:
        self._api = api
        self._topics = topics

    async def acknowledge(self, queue: str, part: int, ack_ids: Sequence[str]) -> frozenset[str]:
        """Remove their messages for good."""
        return await self._settle("acknowledge", types.AcknowledgeRequest.pb(), queue, part, ack_ids, {})

    async def lock(self, queue: str, part: int, ack_ids: Sequence[str], seconds: int) -> frozenset[str]:
        """Lock their messages for so many seconds from now: 0 hands them back, 600 is the most."""
        more = {"ack_deadline_seconds": seconds}
        return await self._settle(
            "modify_ack_deadline", types.ModifyAckDeadlineRequest.pb(), queue, part, ack_ids, more
        )

    async def _settle(
        self, verb: str, request: type, queue: str, part: int, ack_ids: Sequence[str], more: dict[str, int]
    ) -> frozenset[str]:
        subscription = self._topics.subscription(queue, part)
        if len(ack_ids) <= LARGEST_BATCH:
            if not ack_ids:
                return frozenset()
            one = request(subscription=subscription, ack_ids=ack_ids, **more)
            return await self._api.settle(verb, one, queue=queue)
        requests = [
            request(subscription=subscription, ack_ids=ack_ids[start : start + LARGEST_BATCH], **more)
            for start in range(0, len(ack_ids), LARGEST_BATCH)
        ]
        lost = await asyncio.gather(*(self._api.settle(verb, one, queue=queue) for one in requests))
        return frozenset().union(*lost)
