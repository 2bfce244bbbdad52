"""Replies: an entity for each inbox, which Service Bus deletes by itself when it is idle for an hour."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from functools import partial

from azure.core.exceptions import ResourceExistsError
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio.management import ServiceBusAdministrationClient

from dumbwaiter.brokers.contract import Inbox
from dumbwaiter.brokers.lines import Line
from dumbwaiter.brokers.servicebus.api import Api
from dumbwaiter.brokers.servicebus.desk import Desk, Order
from dumbwaiter.brokers.servicebus.errors import NoEntityError
from dumbwaiter.brokers.servicebus.names import new_inbox
from dumbwaiter.brokers.servicebus.tap import Tap
from dumbwaiter.brokers.servicebus.wire import message_of, read
from dumbwaiter.errors import BrokerClosedError, BrokerError, BrokerUnavailableError
from dumbwaiter.message import Message
from dumbwaiter.tasks import end, every

IDLE = dt.timedelta(hours=1)
SIGN_EVERY = 600.0
"""Seconds between two signs of life, so that an inbox in which nothing arrives is not idle."""
_LOCK = dt.timedelta(seconds=60)
_LOOK = 256
_REMEMBERED = 10_000


class ServicebusInbox(Inbox):
    """Replies that came, oldest first, until they are read."""

    def __init__(self, api: Api, *, require_open: Callable[[], None]) -> None:
        self.address = new_inbox(api.location.prefix)
        self._api = api
        self._tap, self._desk = Tap(api, self.address), Desk(api, self.address)
        self._require_broker = require_open
        self._is_open = True
        self._messages: deque[Message] = deque()
        self._came: OrderedDict[int, None] = OrderedDict()
        self._line: Line[Message] = Line(lambda: None, lambda items: self._messages.extendleft(reversed(items)))
        self._readers = 0
        self._nobody = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._signing: asyncio.Task[object] | None = None
        self._completing: set[asyncio.Task[object]] = set()
        self._error: BrokerError | None = None

    async def open(self) -> None:
        """Make the entity."""
        await self._make()
        self._signing = asyncio.get_running_loop().create_task(every(SIGN_EVERY, self._sign))

    async def receive(self, *, max_messages: int, max_wait: float) -> list[Message]:
        self._require_open()
        take = partial(self._take, max_messages)
        self._readers += 1
        self._nobody.clear()
        try:
            if self._reading is None:
                self._error = None
                self._reading = asyncio.get_running_loop().create_task(self._read())
            wait = max_wait if max_messages > 0 else 0.0
            messages = await self._line.receive(self, take, wait, check_open=self._require_open)
        finally:
            self._readers -= 1
            if not self._readers:
                self._nobody.set()
        self._require_open()
        if not messages and self._error is not None:
            raise self._error
        return messages

    async def close(self) -> None:
        if self._is_open:
            await self.leave()
            with contextlib.suppress(NoEntityError):
                await self._api.manage("deleting an inbox", lambda client: client.delete_queue(self.address))

    async def leave(self) -> None:
        """Send readers away: this inbox is closed."""
        self._is_open = False
        with self._line.lock:
            self._line.dismiss(self)
        self._nobody.set()
        await end([self._signing])
        if self._reading is not None:
            await asyncio.wait([self._reading])
        await end(self._completing)
        await asyncio.gather(self._tap.close(), self._desk.close())

    def _take(self, limit: int) -> list[Message]:
        return [self._messages.popleft() for _ in range(min(limit, len(self._messages)))]

    def _require_open(self) -> None:
        self._require_broker()
        if not self._is_open:
            raise BrokerClosedError("this inbox is closed; open another with open_inbox()")

    async def _make(self) -> None:
        async def ask(client: ServiceBusAdministrationClient) -> None:
            with contextlib.suppress(ResourceExistsError):
                await client.create_queue(
                    self.address, auto_delete_on_idle=IDLE, default_message_time_to_live=IDLE, lock_duration=_LOCK
                )

        await self._api.manage("making an inbox", ask)

    async def _read(self) -> None:
        """Take what comes, as long as somebody waits for it."""
        try:
            while self._readers and self._is_open:
                try:
                    # A look first: whoever waits for nothing wants what is there already.
                    self._put(await self._tap.look(_LOOK) or await self._tap.stand(self._nobody))
                except NoEntityError:
                    await self._make()
        except BrokerError as error:
            self._error = error
        except Exception as error:  # readers must not wait in vain, whatever the client raises
            self._error = BrokerUnavailableError(f"reading an inbox failed: {error}")
        finally:
            self._reading = None
        if self._error is not None:
            with self._line.lock:
                self._line.dismiss(self)
        elif self._readers and self._is_open:
            self._reading = asyncio.get_running_loop().create_task(self._read())

    def _put(self, raws: Sequence[ServiceBusReceivedMessage]) -> None:
        if not raws:
            return
        arrived = [read(raw) for raw in raws]
        # Nobody waits until they are completed; a reply that comes again because that failed is known.
        orders = [Order("completed", one.token) for one in arrived if one.token is not None]
        completing: asyncio.Task[object] = asyncio.get_running_loop().create_task(self._desk.do(orders))
        self._completing.add(completing)
        completing.add_done_callback(self._completing.discard)
        with self._line.lock:
            for one in arrived:
                if one.number not in self._came:
                    self._came[one.number] = None
                    self._messages.append(message_of(one))
            while len(self._came) > _REMEMBERED:
                self._came.popitem(last=False)
            self._line.changed()

    async def _sign(self) -> None:
        with contextlib.suppress(BrokerError, NoEntityError):
            self._put(await self._tap.look(_LOOK))
