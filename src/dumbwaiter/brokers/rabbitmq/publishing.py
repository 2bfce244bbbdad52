"""Publishing: persistent, pipelined, and confirmed by the server; what it refuses for a moment is published again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from dumbwaiter.brokers.rabbitmq.errors import MissingQueueError, RefusedError, translated
from dumbwaiter.brokers.rabbitmq.link import PATIENCE, Link
from dumbwaiter.brokers.served import NOT_READY_PAUSES
from dumbwaiter.errors import BrokerUnavailableError

_PIPELINED = 512
_SLOWEST = 1024 * 1024
"""Bytes a second; a server that takes less is taken for one that does not answer."""


class Copy(msgspec.Struct, frozen=True, gc=False):
    """A *body* with *properties*, to be put into the physical queue *name*."""

    name: str
    body: bytes
    properties: Basic.Properties


class Publisher:
    """Publishes over *link*, to the default exchange."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def frame_max(self) -> int:
        """The largest frame that the server takes, in bytes: properties must fit one."""
        return self._link.frame_max

    async def publish(self, copies: Sequence[Copy]) -> None:
        """Return when the server has confirmed all of them: quorum queues, when a majority has them on disk.

        Raises MissingQueueError, and BrokerUnavailableError, in which case nobody knows which were taken.
        """
        for start in range(0, len(copies), _PIPELINED):
            await self._insist(copies[start : start + _PIPELINED])

    async def reaches(self, name: str) -> bool:
        """Whether there is a queue of that *name*, asked by a publish that reaches none if there is not."""
        try:
            await self.publish([Copy(name, b"", Basic.Properties(delivery_mode=1))])
        except MissingQueueError:
            return False
        return True

    async def _insist(self, copies: Sequence[Copy]) -> None:
        """Publish *copies*, and those again that the server refused: it has not stored them."""
        refused = await self._publish(await self._link.shared("publishes"), copies)
        for pause in NOT_READY_PAUSES:
            if not refused:
                return
            await asyncio.sleep(pause)
            refused = await self._publish(await self._link.shared("publishes"), refused)
        if refused:
            raise RefusedError(self._link.where, refused[0].name)

    async def _publish(self, channel: AbstractChannel, copies: Sequence[Copy]) -> list[Copy]:
        """Those that were refused; the others are confirmed."""
        where = self._link.where
        if len(copies) == 1:
            try:
                with translated(where, copies[0].name):
                    async with asyncio.timeout(_patience(copies)):
                        await _publish_one(channel, copies[0])
            except RefusedError:
                return list(copies)
            return []
        tasks = [asyncio.create_task(self._publish_translated(channel, copy)) for copy in copies]
        try:
            done, pending = await asyncio.wait(tasks, timeout=_patience(copies))
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        for task in pending:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        errors = [error for task in done if (error := task.exception()) is not None]
        for error in errors:
            if not isinstance(error, RefusedError):
                raise error
        if pending:
            raise BrokerUnavailableError(
                f"{where} does not confirm what is published; look whether it is out of memory or disk space "
                "(rabbitmq-diagnostics alarms), or a majority of its nodes is down"
            )
        return [copy for copy, task in zip(copies, tasks, strict=True) if task.exception() is not None]

    async def _publish_translated(self, channel: AbstractChannel, copy: Copy) -> None:
        with translated(self._link.where, copy.name):
            await _publish_one(channel, copy)


async def _publish_one(channel: AbstractChannel, copy: Copy) -> None:
    await channel.basic_publish(copy.body, routing_key=copy.name, properties=copy.properties, mandatory=True)


def _patience(copies: Sequence[Copy]) -> float:
    return PATIENCE + sum(len(copy.body) for copy in copies) / _SLOWEST
