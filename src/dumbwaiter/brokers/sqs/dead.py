"""Dead letters: a queue of SQS for each of ours. SQS cannot show what is in a queue, so a look is a receive.

Whoever looks locks them one after the other until there are no more, and then hands them back. So each look costs a
request for every ten dead letters there and another one to hand them back, and meanwhile nobody else sees them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias

from dumbwaiter.brokers.sqs.api import LARGEST_BATCH, Api, raise_unavailable
from dumbwaiter.brokers.sqs.names import DEAD
from dumbwaiter.brokers.sqs.queues import Queues
from dumbwaiter.brokers.sqs.wire import Arrived, entry_of, is_key, letter_of, message_of, read
from dumbwaiter.errors import BrokerUnavailableError, DeadLetterNotFoundError
from dumbwaiter.message import DeadLetter
from dumbwaiter.policies.lanes import LANES, lane_of

_LOOK_LOCK = 300
"""Seconds for which a look hides what it has seen, should its process die."""
_WAIT = 1
"""Seconds. A receive that waits asks all servers of SQS, so that nothing found means that there is nothing."""


Each: TypeAlias = "Callable[[Look, list[Arrived]], Coroutine[Any, Any, bool]]"
First: TypeAlias = Callable[[str, list[Arrived]], Coroutine[Any, Any, None]]


class DeadLetters:
    """The dead letters of all queues. *spawn* lets work run on, whoever leaves."""

    def __init__(self, api: Api, queues: Queues, *, spawn: Callable[[Coroutine[Any, Any, object]], None]) -> None:
        self._api = api
        self._queues = queues
        self._spawn = spawn
        self._looking: dict[str, asyncio.Lock] = {}

    async def page(self, queue: str, limit: int, after: str | None) -> list[DeadLetter]:
        """As the contract says of dead_letters()."""
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
        return [letter_of(queue, one) for one in oldest]

    async def has(self, queue: str, key: str) -> bool:
        """As the contract says of is_dead_letter()."""
        if not is_key(key):
            await self._queues.look_up(queue, DEAD)
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
        """Delete those with *keys* after *first* was done with them. Returns how many."""
        url = await self._queues.url(queue, DEAD)
        wanted = None if keys is None else set(keys)
        count = 0

        async def take(look: Look, came: list[Arrived]) -> bool:
            nonlocal count
            ours = [one for one in came if wanted is None or one.key in wanted]
            if ours:
                if first is not None:
                    await first(queue, ours)
                handles = [{"ReceiptHandle": one.handle} for one in ours]
                raise_unavailable(await self._api.batch("delete_message_batch", url, handles))
                look.forget(ours)
                count += len(ours)
            return wanted is None or count < len(wanted)

        if wanted is None or wanted:
            await self._look(queue, take)
        return count

    async def _send_back(self, queue: str, came: list[Arrived]) -> None:
        messages = [message_of(one) for one in came]
        for lane in range(LANES):
            entries = [entry_of(message) for message in messages if lane_of(message.priority) == lane]
            if entries and await self._queues.send(await self._queues.url(queue, lane), entries, queue=queue):
                # They are dead letters still, also those that were taken; a message that comes twice is no harm.
                raise BrokerUnavailableError(f"SQS took not all dead letters of {queue!r}; redrive again")

    async def _look(self, queue: str, each: Each) -> None:
        """Call *each* with all dead letters, some at a time, while it returns True; and hand back what is left.

        A look is not cut short, for what SQS answered to a request that was cancelled would stay locked. Whoever is
        cancelled leaves, and the look ends after the request that is under way.
        """
        url = await self._queues.url(queue, DEAD)
        look = Look()
        looking = asyncio.get_running_loop().create_task(self._look_through(queue, url, look, each))
        self._spawn(_finish(looking))
        try:
            await asyncio.shield(looking)
        finally:
            look.is_over = True

    async def _look_through(self, queue: str, url: str, look: Look, each: Each) -> None:
        async with self._looking.setdefault(queue, asyncio.Lock()):
            try:
                while not look.is_over and (fresh := look.see(await self._receive(queue, url))):
                    if look.is_over or not await each(look, fresh):
                        break
            finally:
                await self._release(url, look)

    async def _receive(self, queue: str, url: str) -> list[Arrived]:
        answer = await self._api.ask(
            "receive_message",
            queue=queue,
            QueueUrl=url,
            MaxNumberOfMessages=LARGEST_BATCH,
            WaitTimeSeconds=_WAIT,
            VisibilityTimeout=_LOOK_LOCK,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )
        return [read(raw) for raw in answer.get("Messages") or ()]

    async def _release(self, url: str, look: Look) -> None:
        entries = [{"ReceiptHandle": handle, "VisibilityTimeout": 0} for handle in look.handles.values()]
        await self._api.batch("change_message_visibility_batch", url, entries)


class Look:
    """What one look has seen: *handles* is what it must hand back, by message id. *is_over*: nobody wants it more."""

    def __init__(self) -> None:
        self.is_over = False
        self.handles: dict[str, str] = {}
        self._seen: set[str] = set()

    def see(self, came: list[Arrived]) -> list[Arrived]:
        """Those of *came* that are new; none when the look has come round."""
        fresh = [one for one in came if one.id not in self._seen]
        self._seen.update(one.id for one in came)
        self.handles |= {one.id: one.handle for one in came}
        return fresh

    def forget(self, gone: list[Arrived]) -> None:
        """These are deleted."""
        for one in gone:
            self.handles.pop(one.id, None)


async def _finish(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # whoever waits for it sees it
