"""Replies: an entity for each inbox, which Service Bus deletes by itself when it is idle for an hour."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Callable, Sequence

from azure.core.exceptions import ResourceExistsError
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio.management import ServiceBusAdministrationClient

from dumbwaiter.brokers.inboxes import PolledInbox, Pulled
from dumbwaiter.brokers.servicebus.api import Api
from dumbwaiter.brokers.servicebus.desk import Desk, Order
from dumbwaiter.brokers.servicebus.errors import NoEntityError
from dumbwaiter.brokers.servicebus.names import new_inbox
from dumbwaiter.brokers.servicebus.tap import Tap
from dumbwaiter.brokers.servicebus.wire import message_of, read
from dumbwaiter.errors import BrokerError
from dumbwaiter.message import Message
from dumbwaiter.tasks import end, every

IDLE = dt.timedelta(hours=1)
SIGN_EVERY = 600.0
"""Seconds between two signs of life, so that an inbox in which nothing arrives is not idle."""
_LOCK = dt.timedelta(seconds=60)
_LOOK = 256


class ServicebusInbox(PolledInbox):
    """The replies of one entity."""

    def __init__(self, api: Api, *, require_open: Callable[[], None]) -> None:
        super().__init__(new_inbox(api.location.prefix), require_open=require_open)
        self._api = api
        self._tap, self._desk = Tap(api, self.address), Desk(api, self.address)
        self._nobody = asyncio.Event()
        self._signing: asyncio.Task[object] | None = None

    async def open(self) -> None:
        """Make the entity."""
        await self._make()
        self._signing = asyncio.get_running_loop().create_task(every(SIGN_EVERY, self._sign))

    async def receive(self, *, max_messages: int, max_wait: float) -> list[Message]:
        self._nobody.clear()
        try:
            return await super().receive(max_messages=max_messages, max_wait=max_wait)
        finally:
            if not self._readers:
                self._nobody.set()

    async def close(self) -> None:
        if self._is_open:
            await self.leave()
            with contextlib.suppress(NoEntityError):
                await self._api.manage("deleting an inbox", lambda client: client.delete_queue(self.address))

    async def leave(self) -> None:
        self.dismiss()
        self._nobody.set()
        await end([self._signing])
        if self._reading is not None:
            await asyncio.wait([self._reading])
        await end(self._beside)
        await asyncio.gather(self._tap.close(), self._desk.close())

    async def _make(self) -> None:
        async def ask(client: ServiceBusAdministrationClient) -> None:
            with contextlib.suppress(ResourceExistsError):
                await client.create_queue(
                    self.address, auto_delete_on_idle=IDLE, default_message_time_to_live=IDLE, lock_duration=_LOCK
                )

        await self._api.manage("making an inbox", ask)

    async def _pull(self) -> Pulled:
        try:
            # A look first: whoever waits for nothing wants what is there already.
            return self._sorted(await self._tap.look(_LOOK) or await self._tap.stand(self._nobody))
        except NoEntityError:
            await self._make()
            return [], None

    def _sorted(self, raws: Sequence[ServiceBusReceivedMessage]) -> Pulled:
        came = [read(raw) for raw in raws]
        orders = [Order("completed", one.token) for one in came if one.token is not None]
        return [(one.number, message_of(one)) for one in came], self._complete(orders) if orders else None

    async def _complete(self, orders: list[Order]) -> None:
        await self._desk.do(orders)

    async def _sign(self) -> None:
        with contextlib.suppress(BrokerError, NoEntityError):
            self._take_in(self._sorted(await self._tap.look(_LOOK)))
