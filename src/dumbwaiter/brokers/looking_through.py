"""Dead letters of a product that cannot show what is in a queue: a look is a receive.

Whoever looks locks them one after the other until there are no more, and then hands them back. So each look costs the
requests that it takes to receive all of them, and meanwhile nobody else sees them.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from dumbwaiter.errors import DeadLetterNotFoundError
from dumbwaiter.message import DeadLetter


class Lying(Protocol):
    """A dead letter as the product gave it: what the product calls it, and the contract's key."""

    @property
    def id(self) -> str: ...
    @property
    def key(self) -> str: ...


A = TypeVar("A", bound=Lying)
Each: TypeAlias = "Callable[[Look[A], list[A]], Coroutine[Any, Any, bool]]"
First: TypeAlias = "Callable[[str, list[A]], Coroutine[Any, Any, None]]"


class LookedThrough(ABC, Generic[A]):
    """The dead letters of all queues. *spawn* lets work run on, whoever leaves."""

    def __init__(self, *, spawn: Callable[[Coroutine[Any, Any, object]], object]) -> None:
        self._spawn = spawn
        self._looking: dict[str, asyncio.Lock] = {}

    async def page(self, queue: str, limit: int, after: str | None) -> list[DeadLetter]:
        """As the contract says of dead_letters()."""
        await self._require(queue)
        if after is not None and not self._is_key(after):
            raise DeadLetterNotFoundError(queue, [after])
        oldest: list[A] = []

        async def keep(_: Look[A], came: list[A]) -> bool:
            # Only as many bodies are kept as are asked for, however many dead letters there are.
            oldest.extend(one for one in came if after is None or one.key > after)
            oldest.sort(key=lambda one: one.key)
            del oldest[max(0, limit) :]
            return True

        await self._look(queue, keep)
        return [self._letter_of(queue, one) for one in oldest]

    async def has(self, queue: str, key: str) -> bool:
        """As the contract says of is_dead_letter()."""
        if not self._is_key(key):
            await self._ask_for(queue)
            return False
        await self._require(queue)
        was_found = False

        async def find(_: Look[A], came: list[A]) -> bool:
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

    # --- a product's own ---

    @abstractmethod
    async def _require(self, queue: str) -> None:
        """Raises QueueNotFoundError, as far as is known."""

    @abstractmethod
    async def _ask_for(self, queue: str) -> None:
        """Ask the product itself whether there is *queue*. Raises QueueNotFoundError, BrokerUnavailableError."""

    @abstractmethod
    def _is_key(self, key: str) -> bool:
        """Whether *key* can be one of a dead letter."""

    @abstractmethod
    def _handle_of(self, lying: A) -> str:
        """What it takes to hand *lying* back."""

    @abstractmethod
    def _letter_of(self, queue: str, lying: A) -> DeadLetter:
        """The dead letter of *queue* that *lying* is."""

    @abstractmethod
    async def _pull(self, queue: str, look: Look[A]) -> list[A]:
        """Lock and return some more of *queue*; none where there are no more."""

    @abstractmethod
    async def _remove(self, queue: str, some: list[A]) -> int:
        """Remove *some* for good. Returns how many were removed by this."""

    @abstractmethod
    async def _release(self, queue: str, handles: list[str]) -> None:
        """Hand back at once what has these *handles*."""

    @abstractmethod
    async def _send_back(self, queue: str, some: list[A]) -> None:
        """Send copies of *some* to *queue*, with a fresh count."""

    # --- how ---

    async def _take(self, queue: str, keys: Sequence[str] | None, first: First[A] | None) -> int:
        """Remove those with *keys* after *first* was done with them. Returns how many."""
        await self._require(queue)
        wanted = None if keys is None else set(keys)
        count = 0

        async def take(look: Look[A], came: list[A]) -> bool:
            nonlocal count
            ours = [one for one in came if wanted is None or one.key in wanted]
            if ours:
                if first is not None:
                    await first(queue, ours)
                count += await self._remove(queue, ours)
                look.forget(ours)
            return wanted is None or count < len(wanted)

        if wanted is None or wanted:
            await self._look(queue, take)
        return count

    async def _look(self, queue: str, each: Each[A]) -> None:
        """Call *each* with all dead letters, some at a time, while it returns True; and hand back what is left.

        A look is not cut short, for what the product answered to a request that was cancelled would stay locked.
        Whoever is cancelled leaves, and the look ends after the request that is under way.
        """
        look: Look[A] = Look(self._handle_of)
        looking = asyncio.get_running_loop().create_task(self._look_through(queue, look, each))
        self._spawn(_finish(looking))
        try:
            await asyncio.shield(looking)
        finally:
            look.is_over = True

    async def _look_through(self, queue: str, look: Look[A], each: Each[A]) -> None:
        async with self._looking.setdefault(queue, asyncio.Lock()):
            try:
                while not look.is_over and (fresh := look.see(await self._pull(queue, look))):
                    if look.is_over or not await each(look, fresh):
                        break
            finally:
                await self._release(queue, look.handles)


class Look(Generic[A]):
    """What one look has seen, without the bodies, which may be many. *is_over*: nobody wants it more."""

    def __init__(self, handle_of: Callable[[A], str]) -> None:
        self.is_over = False
        self._handle_of = handle_of
        self._held: dict[str, str] = {}
        self._seen: set[str] = set()

    @property
    def handles(self) -> list[str]:
        """Of what it must hand back, each as it came last."""
        return list(self._held.values())

    @property
    def has_seen_any(self) -> bool:
        """Whether there was anything yet."""
        return bool(self._seen)

    def see(self, came: list[A]) -> list[A]:
        """Those of *came* that are new; none when the look has come round."""
        fresh = [one for one in came if one.id not in self._seen]
        self._seen.update(one.id for one in came)
        self._held |= {one.id: self._handle_of(one) for one in came}
        return fresh

    def forget(self, gone: list[A]) -> None:
        """These need not be handed back."""
        for one in gone:
            self._held.pop(one.id, None)


async def _finish(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # whoever waits for it sees it
