"""The frame of a broker that is asked for messages: what it opens it closes, in order, and each inbox once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Generic, Protocol

from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION, Inbox
from dumbwaiter.brokers.lease_held import D, L, LeaseHeldBroker
from dumbwaiter.brokers.polling import spawn_end
from dumbwaiter.errors import BrokerClosedError, BrokerError, InboxGoneError, QueueNotFoundError
from dumbwaiter.tasks import end

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dumbwaiter.brokers.inboxes import PolledInbox
    from dumbwaiter.message import Delivery, Message

_CLOSE_WITHIN = 10.0
"""Seconds that close() takes at most to hand back what is held."""

#: Brokers that are closed, and whose last long polls hand back what they bring.
_leaving: set[asyncio.Task[None]] = set()


class Receiving(Protocol):
    """Who receives from one queue, for all that wait: polling.Reception, or a product's own."""

    @property
    def polls(self) -> list[asyncio.Task[None]]:
        """What stands still once it is closed, and must not be cut off."""
        ...

    async def receive(self, max_messages: int, max_wait: float) -> list[Delivery]:
        """As the contract says of a broker that is open."""
        ...

    async def close(self, error: BrokerError) -> None:
        """Give *error* to those who wait."""
        ...


class PolledBroker(LeaseHeldBroker[L, D], Generic[L, D]):
    """A LeaseHeldBroker of a product that is asked, for messages as for replies."""

    def __init__(self, url: str, *, lock_duration: float = DEFAULT_LOCK_DURATION) -> None:
        super().__init__(url, lock_duration=lock_duration)
        self._receptions: dict[str, Receiving] = {}
        self._inboxes: list[PolledInbox] = []
        self._sweeping: asyncio.Task[None] | None = None

    async def _connect(self) -> None:
        await self._build()
        try:
            await self._try()
        except BaseException:
            await self._let_go()
            raise

    async def _disconnect(self) -> None:
        try:
            with contextlib.suppress(TimeoutError):  # what could not be handed back is free when its lock ends
                async with asyncio.timeout(_CLOSE_WITHIN):
                    await self._hand_all_back()
        finally:
            polls = [poll for reception in self._receptions.values() for poll in reception.polls]
            leaving = spawn_end(polls, self._let_go)
            _leaving.add(leaving)
            leaving.add_done_callback(_leaving.discard)
            self._receptions.clear()
            self._inboxes.clear()
        if not polls:
            await asyncio.shield(leaving)

    async def _hand_all_back(self) -> None:
        await end([self._sweeping])
        closing = BrokerClosedError()
        await asyncio.gather(*(reception.close(closing) for reception in self._receptions.values()))
        # Beside each other: an inbox whose deletion is not answered keeps no message from going back.
        await asyncio.gather(self._holding.close(), *map(_close_inbox, self._inboxes))

    async def _check(self) -> None:
        # Such a product has no disk of ours that fills; so whoever can ask can send.
        await self._try()

    async def _receive(self, queue: str, max_messages: int, max_wait: float) -> list[Delivery]:
        reception = self._receptions.get(queue)
        if reception is None:
            reception = self._receptions[queue] = self._new_reception(queue)
        return await reception.receive(max_messages, max_wait)

    async def _open_inbox(self) -> Inbox:
        inbox = self._new_inbox()
        await inbox.open()
        self._inboxes = [*(one for one in self._inboxes if one.is_open), inbox]
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().create_task(self._sweep(time.time()))
        return inbox

    async def _reply(self, address: str, messages: Sequence[Message]) -> None:
        if not self._is_inbox(address):
            await self._try()  # raises where nobody can be asked
            raise InboxGoneError(address)
        try:
            await self._answer(address, messages)
        except QueueNotFoundError:
            raise InboxGoneError(address) from None

    # --- a product's own ---

    @abstractmethod
    async def _build(self) -> None:
        """Make what this broker is of, its holding and dead letters with it."""

    @abstractmethod
    async def _try(self) -> None:
        """Ask for something that changes nothing. Raises BrokerUnavailableError."""

    @abstractmethod
    async def _let_go(self) -> None:
        """Disconnect; nothing is under way any more."""

    @abstractmethod
    def _new_reception(self, queue: str) -> Receiving:
        """Who receives from *queue*."""

    @abstractmethod
    def _new_inbox(self) -> PolledInbox:
        """One that is not open yet."""

    @abstractmethod
    def _is_inbox(self, address: str) -> bool:
        """Whether *address* can be an inbox of ours. Callers write addresses, so nothing else is ever sent to."""

    @abstractmethod
    async def _answer(self, address: str, messages: Sequence[Message]) -> None:
        """Put *messages* there. Raises QueueNotFoundError where nothing is."""

    async def _sweep(self, now: float) -> None:
        """Delete inboxes whose owners are dead, where the product does not do that itself. Raises nothing."""


async def _close_inbox(inbox: PolledInbox) -> None:
    with contextlib.suppress(BrokerError):  # others sweep it, or it ends by itself
        await inbox.close()
