"""Dead letters: a topic and its subscription for each of our queues, which is looked through (looking_through.py), a
thousand at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from dumbwaiter.brokers.looking_through import Look, LookedThrough
from dumbwaiter.brokers.pubsub.api import LARGEST_BATCH, Api
from dumbwaiter.brokers.pubsub.names import DEAD
from dumbwaiter.brokers.pubsub.settling import Settling
from dumbwaiter.brokers.pubsub.source import pull
from dumbwaiter.brokers.pubsub.topics import Topics
from dumbwaiter.brokers.pubsub.wire import Arrived, is_key, letter_of, message_of, outgoing
from dumbwaiter.message import DeadLetter
from dumbwaiter.policies.lanes import LANES, lane_of

LAST_WAIT = 3.0
"""Seconds for which the last pull of a look waits, so that nothing found means that there is nothing."""


class DeadLetters(LookedThrough[Arrived]):
    """The dead letters of all queues."""

    def __init__(
        self, api: Api, topics: Topics, settling: Settling, *, spawn: Callable[[Coroutine[Any, Any, object]], object]
    ) -> None:
        super().__init__(spawn=spawn)
        self._api, self._topics, self._settling = api, topics, settling
        #: The emulator has one memory, and says at once that there is nothing.
        self.last_wait = 0.0 if api.location.is_emulator else LAST_WAIT

    async def _require(self, queue: str) -> None:
        await self._topics.ack_deadline(queue, DEAD)

    async def _ask_for(self, queue: str) -> None:
        await self._topics.look_up(queue, DEAD)

    def _is_key(self, key: str) -> bool:
        return is_key(key)

    def _handle_of(self, lying: Arrived) -> str:
        return lying.ack_id

    def _letter_of(self, queue: str, lying: Arrived) -> DeadLetter:
        return letter_of(queue, self._topics.id(queue, DEAD), lying)

    async def _pull(self, queue: str, look: Look[Arrived]) -> list[Arrived]:
        came = await pull(self._api, self._topics, queue, DEAD, LARGEST_BATCH, wait=0.0)
        if not came and self.last_wait:
            # Another process may have them all in hand, which gives them back after its own last wait.
            wait = self.last_wait * (1 if look.has_seen_any else 2)
            came = await pull(self._api, self._topics, queue, DEAD, LARGEST_BATCH, wait=wait)
        return came

    async def _remove(self, queue: str, some: list[Arrived]) -> int:
        lost = await self._settling.acknowledge(queue, DEAD, [one.ack_id for one in some])
        return len(some) - len(lost)

    async def _release(self, queue: str, handles: list[str]) -> None:
        await self._settling.lock(queue, DEAD, handles, 0)

    async def _send_back(self, queue: str, some: list[Arrived]) -> None:
        topic = self._topics.id(queue, DEAD)
        messages = [message_of(topic, one) for one in some]
        for lane in range(LANES):
            copies = [outgoing(message) for message in messages if lane_of(message.priority) == lane]
            if copies:
                await self._topics.publish(queue, lane, copies)
