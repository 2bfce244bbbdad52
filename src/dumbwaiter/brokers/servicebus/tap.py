"""A receiving link whose credit is ours: no message is locked for us that nobody asked for.

The client's own receive asks for messages and leaves what it asked for with the service when its time is over, so that
what comes later is locked for somebody who has left; and it waits for a fifth of a second whenever it gets less than it
asked for. So the link below it is used here, by names that the client does not promise to keep: each look gives credit
and has the service take back at once what it has no message for, which AMQP calls to drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver

from dumbwaiter.brokers.servicebus.api import ANSWER_WITHIN, Api, Channel
from dumbwaiter.errors import BrokerUnavailableError

_WRAP = 2**32
_SIGN_EVERY = 20.0
"""Seconds after which a link that waits is read anew, so that the connection gives a sign of life."""


class Tap:
    """The link to the entity *name*. Any number of tasks may use it, one after the other."""

    def __init__(self, api: Api, name: str) -> None:
        self._channel: Channel[ServiceBusReceiver] = Channel(api, name, api.receiver)
        self._turn = asyncio.Lock()
        self._interrupt = asyncio.Event()
        self._wired: ServiceBusReceiver | None = None

    async def look(self, count: int) -> list[ServiceBusReceivedMessage]:
        """Up to *count* messages that are there now. Whoever stands here leaves."""
        self._interrupt.set()
        async with self._turn:
            return await self._channel.use("receiving", partial(self._look, count))

    async def stand(self, until: asyncio.Event) -> list[ServiceBusReceivedMessage]:
        """Wait for a message, or until *until* is set, or somebody else wants this link."""
        async with self._turn:
            self._interrupt.clear()
            return await self._channel.use("receiving", partial(self._stand, until), within=3600.0)

    async def release(self, messages: Sequence[ServiceBusReceivedMessage]) -> list[ServiceBusReceivedMessage]:
        """Hand *messages* back at once, uncounted. Returns those that came by a link that is no more."""
        self._interrupt.set()
        async with self._turn:
            receiver = self._channel.handler
            left = [one for one in messages if receiver is None or _receiver_of(one) is not receiver]
            ours = [one for one in messages if receiver is not None and _receiver_of(one) is receiver]
            if ours:
                await self._channel.use("handing back", partial(_release, ours))
            return left

    async def open(self) -> None:
        """Connect, if that has not been done."""
        async with self._turn:
            await self._channel.use("receiving", self._ready)

    async def close(self) -> None:
        """Detach. What was received stays locked."""
        self._interrupt.set()
        async with self._turn:
            await self._channel.close()

    # --- with the turn ---

    async def _look(self, count: int, receiver: ServiceBusReceiver) -> list[ServiceBusReceivedMessage]:
        handler = await self._ready(receiver)
        await self._drain(handler, count)
        return _received(receiver, handler)

    async def _stand(self, until: asyncio.Event, receiver: ServiceBusReceiver) -> list[ServiceBusReceivedMessage]:
        handler = await self._ready(receiver)
        link = handler._link  # noqa: SLF001 - see the module text
        await link.flow(link_credit=1)
        leaving = [asyncio.ensure_future(event.wait()) for event in (until, self._interrupt)]
        try:
            while link.current_link_credit > 0 and not any(one.done() for one in leaving):
                await _listen_unless(handler, leaving)
                await handler.auth_complete_async()
        finally:
            for one in leaving:
                one.cancel()
        if link.current_link_credit > 0:
            await self._drain(handler, link.current_link_credit)
        return _received(receiver, handler)

    async def _ready(self, receiver: ServiceBusReceiver) -> Any:
        """The client below *receiver*, with a token that is not over. It tells us what the service says of credit, for
        it passes over that itself.
        """
        handler: Any = receiver._handler  # noqa: SLF001 - see the module text
        while not await handler.client_ready_async():
            pass
        if self._wired is not receiver:
            handler._link._incoming_flow = partial(_note, handler._link)  # noqa: SLF001 - as above
            self._wired = receiver
        return handler

    async def _drain(self, handler: Any, count: int) -> None:
        """Give credit for *count* messages, and wait until each is used or taken back."""
        link = handler._link  # noqa: SLF001 - see the module text
        give_up_at = time.monotonic() + ANSWER_WITHIN / 2
        await link.flow(link_credit=count, drain=True)
        while link.current_link_credit > 0:
            if time.monotonic() > give_up_at:
                raise BrokerUnavailableError("Service Bus did not say whether there are messages")
            await _listen(handler, 1.0)


async def _note(link: Any, frame: Sequence[Any]) -> None:
    """The service says how far it has come on *link*: what it skipped is credit that it took back."""
    if (delivery_count := frame[5]) is not None:
        skipped = (delivery_count - link.delivery_count) % _WRAP
        link.delivery_count = delivery_count
        link.current_link_credit = max(0, link.current_link_credit - skipped)


async def _listen(handler: Any, seconds: float) -> None:
    """Read one frame, for at most so many *seconds*. Raises what broke the link."""
    await handler._connection.listen(wait=seconds)  # noqa: SLF001 - see the module text
    if handler._connection._error is not None:  # noqa: SLF001
        raise handler._connection._error  # noqa: SLF001
    handler._link.get_state()  # noqa: SLF001
    if handler._link.current_link_credit > 0 and handler._link.get_state().name != "ATTACHED":  # noqa: SLF001
        raise BrokerUnavailableError("Service Bus closed the link")


async def _listen_unless(handler: Any, leaving: Sequence[asyncio.Future[Any]]) -> None:
    """Read one frame, unless one of *leaving* is done first. A frame that was read in part is read on later."""
    listening = asyncio.ensure_future(_listen(handler, _SIGN_EVERY))
    try:
        await asyncio.wait([listening, *leaving], return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not listening.done():
            listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening


def _received(receiver: ServiceBusReceiver, handler: Any) -> list[ServiceBusReceivedMessage]:
    """What has arrived."""
    arrived = handler._received_messages  # noqa: SLF001 - see the module text
    read = cast(Any, receiver)._build_received_message  # noqa: SLF001
    return [read(arrived.get()) for _ in range(arrived.qsize())]


def _receiver_of(message: ServiceBusReceivedMessage) -> Any:
    return message._receiver  # noqa: SLF001 - see the module text


async def _release(messages: Sequence[ServiceBusReceivedMessage], receiver: ServiceBusReceiver) -> None:
    """The outcome *released*: Service Bus counts no delivery for it. The client has no call for that."""
    handler = receiver._handler  # noqa: SLF001 - see the module text
    for one in messages:
        await handler.settle_messages_async(one._delivery_id, one._delivery_tag, "released")  # noqa: SLF001
