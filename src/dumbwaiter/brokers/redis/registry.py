"""Which queues there are: their names stand in a set, where anybody may write, and their streams may be deleted."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from dumbwaiter.brokers.redis.connection import Pipeline
from dumbwaiter.brokers.redis.keys import registry_key
from dumbwaiter.message import is_queue_name


class Registry:
    """The set of names below *prefix*. *has_queue* tells whether the streams of a queue are there."""

    def __init__(self, pipeline: Pipeline, prefix: str, *, has_queue: Callable[[str], Awaitable[bool]]) -> None:
        self.key = registry_key(prefix)
        self._pipeline = pipeline
        self._has_queue = has_queue

    async def add(self, queue: str) -> None:
        """Register *queue*."""
        await self._pipeline.ask("SADD", self.key, queue)

    async def names(self, *, all_here: bool) -> list[str]:
        """The queues that are registered and there, sorted. Not *all_here*: some may lie on other nodes of a cluster,
        of which this one cannot tell, and all names count.
        """
        names = sorted(filter(is_queue_name, map(_text, await self._members())))
        if not all_here:
            return names
        there = await asyncio.gather(*map(self._has_queue, names))
        return list(itertools.compress(names, there))

    async def strangers(self, *, all_here: bool) -> list[str]:
        """What is registered and no queue: its streams are gone, or somebody else wrote it there. For people."""
        ours = set(await self.names(all_here=all_here))
        return sorted(text for text in map(_text, await self._members()) if text not in ours)

    async def _members(self) -> list[bytes]:
        members: list[bytes] = await self._pipeline.ask("SMEMBERS", self.key)
        return members


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
