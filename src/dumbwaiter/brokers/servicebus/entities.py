"""The entities of a namespace that are in use: one outlet, tap and desk for each, made when they are needed."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from azure.servicebus import ServiceBusMessage

from dumbwaiter.brokers.servicebus.api import Api
from dumbwaiter.brokers.servicebus.desk import Desk
from dumbwaiter.brokers.servicebus.errors import NoEntityError, TooLargeError
from dumbwaiter.brokers.servicebus.outlet import Outlet
from dumbwaiter.brokers.servicebus.tap import Tap
from dumbwaiter.errors import MessageTooLargeError, QueueNotFoundError

_INBOXES = 64
"""Inboxes to which a connection is kept open."""


class Entities:
    """Those that the broker at *api* uses."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._outlets: dict[str, Outlet] = {}
        self._inbox_outlets: OrderedDict[str, Outlet] = OrderedDict()
        self._taps: dict[str, Tap] = {}
        self._desks: dict[str, Desk] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def outlet(self, name: str) -> Outlet:
        """The one to send to the entity *name* with."""
        if name not in self._outlets:
            self._outlets[name] = Outlet(self._api, name)
        return self._outlets[name]

    def inbox_outlet(self, name: str) -> Outlet:
        """The one to reply to the inbox *name* with. Those that were not used for the longest time are closed."""
        outlet = self._inbox_outlets.setdefault(name, Outlet(self._api, name))
        self._inbox_outlets.move_to_end(name)
        if len(self._inbox_outlets) > _INBOXES:
            self._close_later(self._inbox_outlets.popitem(last=False)[1])
        return outlet

    def forget_inbox(self, name: str) -> None:
        """Nobody is there any more."""
        if (outlet := self._inbox_outlets.pop(name, None)) is not None:
            self._close_later(outlet)

    def tap(self, name: str) -> Tap:
        """The one to receive from the entity *name* with."""
        if name not in self._taps:
            self._taps[name] = Tap(self._api, name)
        return self._taps[name]

    def desk(self, name: str) -> Desk:
        """The one to settle messages of the entity *name* at."""
        if name not in self._desks:
            self._desks[name] = Desk(self._api, name)
        return self._desks[name]

    async def send(self, queue: str, name: str, messages: Sequence[ServiceBusMessage]) -> None:
        """Send to the entity *name* of *queue*. Raises QueueNotFoundError, MessageTooLargeError."""
        try:
            await self.outlet(name).send(messages)
        except NoEntityError:
            raise QueueNotFoundError(queue) from None
        except TooLargeError:
            limit = self._api.location.max_message_size
            raise MessageTooLargeError(max(_nbytes(message) for message in messages), limit) from None

    async def close(self) -> None:
        """Disconnect from all of them."""
        every: list[Outlet | Tap | Desk] = [
            *self._outlets.values(),
            *self._inbox_outlets.values(),
            *self._taps.values(),
            *self._desks.values(),
        ]
        await asyncio.gather(*(one.close() for one in every), *self._closing, return_exceptions=True)

    def _close_later(self, outlet: Outlet) -> None:
        closing = asyncio.get_running_loop().create_task(outlet.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _nbytes(message: ServiceBusMessage) -> int:
    return sum(len(part) for part in message.body if isinstance(part, bytes))
