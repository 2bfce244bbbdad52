"""Queues for delayed messages: made when they are first needed, and found by all by a register."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence

from pamqp.commands import Basic

from dumbwaiter.brokers.rabbitmq.drawer import Drawer
from dumbwaiter.brokers.rabbitmq.errors import MissingQueueError
from dumbwaiter.brokers.rabbitmq.link import Link
from dumbwaiter.brokers.rabbitmq.names import (
    delay_arguments,
    delay_name,
    is_delay_name,
    lane_name,
    register_name,
    throwaway_name,
)
from dumbwaiter.brokers.rabbitmq.publishing import Copy, Publisher
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.policies.delays import bucket_of

_DECLARED_FOR = 3600.0
"""Seconds after which a declaration is said again: it keeps the server from deleting the queue as unused."""


class Delays:
    """Those of *queue*."""

    def __init__(self, prefix: str, queue: str, link: Link, publisher: Publisher) -> None:
        self._prefix = prefix
        self._queue = queue
        self._link = link
        self._publisher = publisher
        self._register = register_name(prefix, queue)
        self._drawer = Drawer(self._register, link)
        self._declared: dict[str, float] = {}
        self._known: set[str] = set()
        self._entries_read = 0
        self._making = asyncio.Lock()

    async def name_for(self, lane: int, delay: float) -> str:
        """The physical queue that keeps a message of *lane* for *delay* seconds. Raises MissingQueueError when there is
        no such queue at all.
        """
        seconds = bucket_of(delay)
        name = delay_name(self._prefix, self._queue, lane, seconds)
        async with self._making:
            if time.monotonic() - self._declared.get(name, -_DECLARED_FOR) >= _DECLARED_FOR:
                await self._declare(name, lane_name(self._prefix, self._queue, lane), seconds)
                self._declared[name] = time.monotonic()
        return name

    def forget(self) -> None:
        """A queue that was declared is not there any more."""
        self._declared.clear()

    async def count(self) -> int:
        """How many messages are delayed."""
        await self._read_register()
        names = sorted(self._known)
        counts = await asyncio.gather(*(self._count(name, place) for place, name in enumerate(names)))
        gone = [name for name, count in zip(names, counts, strict=True) if count is None]
        if gone:
            await self._strike_out(gone)
        return sum(count or 0 for count in counts)

    async def _declare(self, name: str, lane: str, seconds: float) -> None:
        await self._read_register()
        is_new = name not in self._known
        if is_new:
            # First the entry: a queue that stands in no register would be counted by nobody.
            entry = Basic.Properties(delivery_mode=2, content_type="text/plain")
            await self._publisher.publish([Copy(self._register, name.encode(), entry)])
        refusal = await self._link.declare(name, delay_arguments(lane, seconds))
        if refusal is not None:
            raise BrokerUnavailableError(
                f"{self._link.where} has another queue {name!r} already: {refusal}; delete it when it is empty"
            )
        if is_new:
            await self._link.settle_names(throwaway_name(self._prefix, secrets.token_hex(8)))
        self._known.add(name)

    async def _read_register(self) -> None:
        entries, _ = await self._link.count(self._register, "drawers")
        if entries <= self._entries_read:
            return
        async with self._drawer.opened() as content:
            async for part in content.parts():
                names = [one.body.decode(errors="replace") for one in part]
                self._known.update(name for name in names if is_delay_name(self._prefix, self._queue, name))
            self._entries_read = content.count

    async def _count(self, name: str, place: int) -> int | None:
        try:
            ready, _ = await self._link.count(name, f"delays {place % 4}")
        except MissingQueueError:
            return None
        return ready

    async def _strike_out(self, names: Sequence[str]) -> None:
        """The server has deleted them, unused for long."""
        bodies = {name.encode() for name in names}
        async with self._drawer.opened() as content:
            async for part in content.parts():
                await content.remove([one for one in part if one.body in bodies])
        self._known.difference_update(names)
        self._entries_read = 0
