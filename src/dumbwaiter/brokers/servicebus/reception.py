"""Receiving from one queue: one look at a time for all who wait, lane by lane, and then a wait in all lanes at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from azure.servicebus import ServiceBusReceivedMessage

from dumbwaiter.brokers.receivers import Receivers
from dumbwaiter.brokers.servicebus.entities import Entities
from dumbwaiter.brokers.servicebus.errors import NoEntityError
from dumbwaiter.brokers.servicebus.holding import Came
from dumbwaiter.brokers.servicebus.names import name_of
from dumbwaiter.errors import BrokerError, QueueNotFoundError
from dumbwaiter.message import Delivery
from dumbwaiter.policies.lanes import LANES, order

_LARGEST_LOOK = 256


class Reception:
    """Receives from *queue*. *accept* makes deliveries of what came; *give_back* hands back such that came for nobody,
    and *release* what is no delivery yet.
    """

    def __init__(
        self,
        entities: Entities,
        prefix: str,
        queue: str,
        *,
        accept: Callable[[str, Sequence[Came]], Awaitable[list[Delivery]]],
        give_back: Callable[[list[Delivery]], object],
        release: Callable[[Sequence[Came]], Awaitable[object]],
    ) -> None:
        self._queue = queue
        self._names = [name_of(prefix, queue, lane) for lane in range(LANES)]
        self._taps = [entities.tap(name) for name in self._names]
        self._accept, self._give_back, self._release = accept, give_back, release
        self._receivers: Receivers[Delivery] = Receivers(changed=self._on_change, give_back=give_back)
        self._turn = 0
        self._arrived: list[tuple[int, Came]] = []
        self._news = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._is_closed = False

    async def receive(self, max_messages: int, max_wait: float) -> list[Delivery]:
        """As the contract says of a broker that is open."""
        return await self._receivers.wait(max_messages, max_wait)

    @property
    def polls(self) -> list[asyncio.Task[None]]:
        """None: who stands leaves at once."""
        return []

    async def close(self, error: BrokerError) -> None:
        """Give *error* to those who wait."""
        self._is_closed = True
        self._receivers.fail(error)
        self._news.set()
        # A look is not cut short: what it finds is held then, and handed back with all the rest.
        if self._serving is not None:
            await asyncio.wait([self._serving])

    def _on_change(self) -> None:
        """A receiver came, left or runs out of patience."""
        if self._serving is not None:
            if self._receivers.is_hurried or not self._receivers.wanted:
                self._news.set()
        elif self._receivers.wanted and not self._is_closed:
            self._serving = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        try:
            if self._turn == 0:
                await asyncio.gather(*(tap.open() for tap in self._taps))
            while self._receivers.wanted:
                self._news.clear()
                self._receivers.begin_look()
                if found := await self._look():
                    if left := self._receivers.hand_out(found):
                        self._give_back(left)
                    continue
                self._receivers.found_nothing()
                if self._receivers.wanted and not self._receivers.is_hurried:
                    await self._stand()
            if self._arrived:
                await self._release([came for _, came in self._arrived])
        except NoEntityError:
            self._receivers.fail(QueueNotFoundError(self._queue))
        except Exception as error:  # whoever waits must not wait in vain, whatever the client raises
            self._receivers.fail(error)
        finally:
            self._arrived.clear()
            self._serving = None
        if self._receivers.wanted:
            self._on_change()  # one that came while the last of it was done

    async def _look(self) -> list[Delivery]:
        """What has arrived, and then lane by lane what there is, until all who wait have enough."""
        wanted = min(self._receivers.wanted, _LARGEST_LOOK)
        lanes: Sequence[int] = order(self._turn)
        if self._arrived:  # only where something came is there more; the others were empty a moment ago
            lanes = sorted({lane for lane, _ in self._arrived})
        found = [came for _, came in self._arrived[:wanted]]
        del self._arrived[:wanted]
        self._turn += 1
        try:
            for lane in lanes:
                if len(found) < wanted:
                    found += self._came(lane, await self._taps[lane].look(wanted - len(found)))
        except BrokerError:
            if not found:
                raise
        return await self._accept(self._queue, found) if found else []

    async def _stand(self) -> None:
        """Wait in all lanes until something comes, or news."""
        outcomes = await asyncio.gather(*(self._stand_in(lane) for lane in range(LANES)), return_exceptions=True)
        for error in outcomes:
            if isinstance(error, BaseException) and not self._arrived:
                raise error

    async def _stand_in(self, lane: int) -> None:
        try:
            came = await self._taps[lane].stand(self._news)
            self._arrived += [(lane, one) for one in self._came(lane, came)]
        finally:
            self._news.set()  # the others leave too

    def _came(self, lane: int, messages: Sequence[ServiceBusReceivedMessage]) -> list[Came]:
        return [Came(message, lane, self._names[lane], self._taps[lane]) for message in messages]
