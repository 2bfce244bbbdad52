"""Dead letters: a queue of SQS for each of ours, which is looked through ten at a time (looking_through.py)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from dumbwaiter.brokers.looking_through import Look, LookedThrough
from dumbwaiter.brokers.sqs.api import LARGEST_BATCH, Api, raise_unavailable
from dumbwaiter.brokers.sqs.names import DEAD
from dumbwaiter.brokers.sqs.queues import Queues
from dumbwaiter.brokers.sqs.wire import Arrived, entry_of, is_key, letter_of, message_of, read
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.message import DeadLetter
from dumbwaiter.policies.lanes import LANES, lane_of

_LOOK_LOCK = 300
"""Seconds for which a look hides what it has seen, should its process die."""
_WAIT = 1
"""Seconds. A receive that waits asks all servers of SQS, so that nothing found means that there is nothing."""


class DeadLetters(LookedThrough[Arrived]):
    """The dead letters of all queues."""

    def __init__(self, api: Api, queues: Queues, *, spawn: Callable[[Coroutine[Any, Any, object]], object]) -> None:
        super().__init__(spawn=spawn)
        self._api = api
        self._queues = queues

    async def _require(self, queue: str) -> None:
        await self._queues.url(queue, DEAD)

    async def _ask_for(self, queue: str) -> None:
        await self._queues.look_up(queue, DEAD)

    def _is_key(self, key: str) -> bool:
        return is_key(key)

    def _handle_of(self, lying: Arrived) -> str:
        return lying.handle

    def _letter_of(self, queue: str, lying: Arrived) -> DeadLetter:
        return letter_of(queue, lying)

    async def _pull(self, queue: str, look: Look[Arrived]) -> list[Arrived]:  # noqa: ARG002 - all looks ask alike
        answer = await self._api.ask(
            "receive_message",
            queue=queue,
            QueueUrl=await self._queues.url(queue, DEAD),
            MaxNumberOfMessages=LARGEST_BATCH,
            WaitTimeSeconds=_WAIT,
            VisibilityTimeout=_LOOK_LOCK,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )
        return [read(raw) for raw in answer.get("Messages") or ()]

    async def _remove(self, queue: str, some: list[Arrived]) -> int:
        handles = [{"ReceiptHandle": one.handle} for one in some]
        url = await self._queues.url(queue, DEAD)
        raise_unavailable(await self._api.batch("delete_message_batch", url, handles))
        return len(some)

    async def _release(self, queue: str, handles: list[str]) -> None:
        entries = [{"ReceiptHandle": handle, "VisibilityTimeout": 0} for handle in handles]
        await self._api.batch("change_message_visibility_batch", await self._queues.url(queue, DEAD), entries)

    async def _send_back(self, queue: str, some: list[Arrived]) -> None:
        messages = [message_of(one) for one in some]
        for lane in range(LANES):
            entries = [entry_of(message) for message in messages if lane_of(message.priority) == lane]
            if entries and await self._queues.send(await self._queues.url(queue, lane), entries, queue=queue):
                # They are dead letters still, also those that were taken; a message that comes twice is no harm.
                raise BrokerUnavailableError(f"SQS took not all dead letters of {queue!r}; redrive again")
