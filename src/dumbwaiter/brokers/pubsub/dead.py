"""Dead letters: a topic and its subscription for each of our queues.

Pub/Sub cannot show what waits, so a look is a pull. Whoever looks locks them one after the other until there are no
more, and then hands them back. So each look costs a request for every thousand dead letters there and another one to
hand them back, and meanwhile nobody else sees them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias

from dumbwaiter.brokers.pubsub.api import LARGEST_BATCH, Api
from dumbwaiter.brokers.pubsub.names import DEAD
from dumbwaiter.brokers.pubsub.settling import Settling
from dumbwaiter.brokers.pubsub.source import pull
from dumbwaiter.brokers.pubsub.topics import Topics
from dumbwaiter.brokers.pubsub.wire import Arrived, is_key, letter_of, message_of, outgoing
from dumbwaiter.errors import BrokerUnavailableError, DeadLetterNotFoundError
from dumbwaiter.message import DeadLetter
from dumbwaiter.policies.lanes import LANES, lane_of

LAST_WAIT = 3.0
"""Seconds for which the last pull of a look waits, so that nothing found means that there is nothing."""

Each: TypeAlias = "Callable[[Look, list[Arrived]], Coroutine[Any, Any, bool]]"
First: TypeAlias = Callable[[str, list[Arrived]], Coroutine[Any, Any, None]]


class DeadLetters:
    """The dead letters of all queues. *spawn* lets work run on, whoever leaves."""

    def __init__(
        self, api: Api, topics: Topics, settling: Settling, *, spawn: Callable[[Coroutine[Any, Any, object]], None]
    ) -> None:
        self._api, self._topics, self._settling = api, topics, settling
        self._spawn = spawn
        self._looking: dict[str, asyncio.Lock] = {}
        #: The emulator has one memory, and says at once that there is nothing.
        self.last_wait = 0.0 if api.location.is_emulator else LAST_WAIT

    async def page(self, queue: str, limit: int, after: str | None) -> list[DeadLetter]:
        """As the contract says of dead_letters()."""
        await self._topics.ack_deadline(queue, DEAD)
        if after is not None and not is_key(after):
            raise DeadLetterNotFoundError(queue, [after])
        oldest: list[Arrived] = []

        async def keep(_: Look, came: list[Arrived]) -> bool:
            # Only as many bodies are kept as are asked for, however many dead letters there are.
            oldest.extend(one for one in came if after is None or one.key > after)
            oldest.sort(key=lambda one: one.key)
            del oldest[max(0, limit) :]
            return True

        await self._look(queue, keep)
        topic = self._topics.id(queue, DEAD)
        return [letter_of(queue, topic, one) for one in oldest]

    async def has(self, queue: str, key: str) -> bool:
        """As the contract says of is_dead_letter()."""
        if not is_key(key):
            await self._topics.look_up(queue, DEAD)
            return False
        was_found = False

        async def find(_: Look, came: list[Arrived]) -> bool:
            nonlocal was_found
            was_found = was_found or any(one.key == key for one in came)
            return not was_found

        await self._look(queue, find)
        return was_found

    async def redrive(self, queue: str, keys: Sequence[str] | None) -> int:
        """As the contract says."""
        return await self._take(queue, keys, self._send_back)

    async def purge(self, queue: str, keys: Sequence[str] | None) -> int:
        """As the contract says."""
        return await self._take(queue, keys, None)

    async def _take(self, queue: str, keys: Sequence[str] | None, first: First | None) -> int:
        """Remove those with *keys* after *first* was done with them. Returns how many."""
        await self._topics.ack_deadline(queue, DEAD)
        wanted = None if keys is None else set(keys)
        count = 0

        async def take(look: Look, came: list[Arrived]) -> bool:
            nonlocal count
            ours = [one for one in came if wanted is None or one.key in wanted]
            if ours:
                if first is not None:
                    await first(queue, ours)
                lost = await self._settling.acknowledge(queue, DEAD, [one.ack_id for one in ours])
                look.forget(ours)
                count += len(ours) - len(lost)
            return wanted is None or count < len(wanted)

        if wanted is None or wanted:
            await self._look(queue, take)
        return count

    async def _send_back(self, queue: str, came: list[Arrived]) -> None:
        topic = self._topics.id(queue, DEAD)
        messages = [message_of(topic, one) for one in came]
        for lane in range(LANES):
            copies = [outgoing(message) for message in messages if lane_of(message.priority) == lane]
            if copies:
                await self._topics.publish(queue, lane, copies)

    async def _look(self, queue: str, each: Each) -> None:
        """Call *each* with all dead letters, some at a time, while it returns True; and hand back what is left.

        A look is not cut short, for what Pub/Sub answered to a request that was cancelled would stay locked. Whoever is
        cancelled leaves, and the look ends after the request that is under way.
        """
        look = Look()
        looking = asyncio.get_running_loop().create_task(self._look_through(queue, look, each))
        self._spawn(_finish(looking))
        try:
            await asyncio.shield(looking)
        finally:
            look.is_over = True

    async def _look_through(self, queue: str, look: Look, each: Each) -> None:
        async with self._looking.setdefault(queue, asyncio.Lock()):
            try:
                while not look.is_over and (fresh := look.see(await self._pull(queue, look))):
                    if look.is_over or not await each(look, fresh):
                        break
            finally:
                await self._settling.lock(queue, DEAD, look.ack_ids, 0)

    async def _pull(self, queue: str, look: Look) -> list[Arrived]:
        came = await pull(self._api, self._topics, queue, DEAD, LARGEST_BATCH, wait=0.0)
        if not came and self.last_wait:
            # Another process may have them all in hand, which gives them back after its own last wait.
            wait = self.last_wait * (1 if look.has_seen_any else 2)
            came = await pull(self._api, self._topics, queue, DEAD, LARGEST_BATCH, wait=wait)
        return came


class Look:
    """What one look has seen. *is_over*: nobody wants it more."""

    def __init__(self) -> None:
        self.is_over = False
        self._held: dict[str, str] = {}
        self._seen: set[str] = set()

    @property
    def ack_ids(self) -> list[str]:
        """What it must hand back."""
        return list(self._held.values())

    @property
    def has_seen_any(self) -> bool:
        """Whether there was anything yet."""
        return bool(self._seen)

    def see(self, came: list[Arrived]) -> list[Arrived]:
        """Those of *came* that are new; none when the look has come round."""
        fresh = [one for one in came if one.id not in self._seen]
        self._seen.update(one.id for one in came)
        self._held |= {one.id: one.ack_id for one in came}
        return fresh

    def forget(self, removed: list[Arrived]) -> None:
        """*removed* need not be handed back."""
        for one in removed:
            self._held.pop(one.id, None)


async def _finish(looking: asyncio.Task[None]) -> None:
    with contextlib.suppress(BrokerUnavailableError):  # whoever looks is told
        await asyncio.shield(looking)
