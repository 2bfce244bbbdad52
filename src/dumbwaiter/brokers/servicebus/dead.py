"""Dead letters: Service Bus keeps a dead-letter queue beside each of ours, which shows what is in it without a lock."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver

from dumbwaiter.brokers.servicebus.api import Api, Channel
from dumbwaiter.brokers.servicebus.desk import Order
from dumbwaiter.brokers.servicebus.entities import Entities
from dumbwaiter.brokers.servicebus.errors import NoEntityError
from dumbwaiter.brokers.servicebus.names import name_of
from dumbwaiter.brokers.servicebus.wire import Arrived, letter_of, message_of, outgoing, read
from dumbwaiter.errors import BrokerError, BrokerUnavailableError, DeadLetterNotFoundError, QueueNotFoundError
from dumbwaiter.message import DeadLetter
from dumbwaiter.policies.lanes import LANES

_SUFFIX = "/$DeadLetterQueue"
_LOOK = 50
_KEY = re.compile(r"(\d)-(\d{1,19})")


class DeadLetters:
    """The dead letters of all queues. A key is a lane and a sequence number there: so pages go lane by lane."""

    def __init__(self, api: Api, entities: Entities) -> None:
        self._api, self._entities = api, entities
        self._channels: dict[str, Channel[ServiceBusReceiver]] = {}
        self._looking: dict[str, asyncio.Lock] = {}

    async def page(self, queue: str, limit: int, after: str | None) -> list[DeadLetter]:
        """As the contract says of dead_letters()."""
        lane, number = _place_of(queue, after) if after is not None else (0, -1)
        letters: list[DeadLetter] = []
        while lane < LANES and len(letters) < limit:
            came = await self._peek(queue, lane, number + 1, limit - len(letters))
            letters += [letter_of(queue, f"{lane}-{one.number}", one) for one in came]
            lane, number = (lane, came[-1].number) if came else (lane + 1, -1)
        return letters

    async def has(self, queue: str, key: str) -> bool:
        """As the contract says of is_dead_letter()."""
        match = _KEY.fullmatch(key)
        lane, number = (int(match[1]), int(match[2])) if match is not None else (LANES, 0)
        came = await self._peek(queue, min(lane, LANES - 1), number, 1)
        return lane < LANES and [one.number for one in came] == [number]

    async def redrive(self, queue: str, keys: Sequence[str] | None) -> int:
        """As the contract says."""

        async def send(name: str, came: Sequence[Arrived]) -> None:
            await self._entities.send(queue, name, [outgoing(message_of(one), is_copy=True) for one in came])

        return await self._take(queue, keys, send)

    async def purge(self, queue: str, keys: Sequence[str] | None) -> int:
        """As the contract says."""

        async def nothing(name: str, came: Sequence[Arrived]) -> None:
            """They are only removed."""

        return await self._take(queue, keys, nothing)

    async def close(self) -> None:
        """Disconnect."""
        await asyncio.gather(*(channel.close() for channel in self._channels.values()), return_exceptions=True)

    async def _peek(self, queue: str, lane: int, first: int, limit: int) -> list[Arrived]:
        """Up to *limit* dead letters of *lane*, from the sequence number *first* on."""
        name = self._name(queue, lane)
        channel = self._channels.setdefault(name, Channel(self._api, name, self._api.receiver))
        async with self._looking.setdefault(name, asyncio.Lock()):
            try:
                peeked = await channel.use(
                    "looking at dead letters",
                    # From 0 on the client would go on where it was the last time.
                    lambda receiver: receiver.peek_messages(limit, sequence_number=max(1, first), timeout=8.0),
                )
            except NoEntityError:
                raise QueueNotFoundError(queue) from None
        return [read(one) for one in peeked]

    async def _take(
        self, queue: str, keys: Sequence[str] | None, first: Callable[[str, Sequence[Arrived]], Awaitable[object]]
    ) -> int:
        """Remove those with *keys*, all unless that is given, after *first* was done with them. Returns how many."""
        wanted: list[set[int] | None] = [None] * LANES
        if keys is not None:
            places = [_place_of(queue, key) for key in keys if _KEY.fullmatch(key)]
            wanted = [{number for lane_, number in places if lane_ == lane} for lane in range(LANES)]
            await self._peek(queue, 0, 1, 1)  # raises where there is no such queue
        takes = (self._take_from(queue, lane, wanted[lane], first) for lane in range(LANES) if wanted[lane] != set())
        outcomes = await asyncio.gather(*takes, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return sum(count for count in outcomes if isinstance(count, int))

    async def _take_from(
        self,
        queue: str,
        lane: int,
        wanted: set[int] | None,
        first: Callable[[str, Sequence[Arrived]], Awaitable[object]],
    ) -> int:
        """Lock dead letters until none is left or all that are *wanted* are found, and hand the others back."""
        name = self._name(queue, lane)
        tap, desk = self._entities.tap(name), self._entities.desk(name)
        others: list[ServiceBusReceivedMessage] = []
        count = 0
        try:
            while wanted is None or count < len(wanted):
                came = await tap.look(_LOOK)
                pairs = [(one, read(one)) for one in came]
                ours = [arrived for _, arrived in pairs if wanted is None or arrived.number in wanted]
                others += [one for one, arrived in pairs if wanted is not None and arrived.number not in wanted]
                if ours:
                    await first(name.removesuffix(_SUFFIX), ours)
                    outcomes = await desk.do([Order("completed", one.token) for one in ours if one.token])
                    _raise_first(outcomes)
                    count += sum(outcome is True for outcome in outcomes)
                if not came:
                    break
        except NoEntityError:
            raise QueueNotFoundError(queue) from None
        finally:
            if others:
                await tap.release(others)
        return count

    def _name(self, queue: str, lane: int) -> str:
        return name_of(self._api.location.prefix, queue, lane) + _SUFFIX


def _place_of(queue: str, key: str) -> tuple[int, int]:
    match = _KEY.fullmatch(key)
    if match is None or int(match[1]) >= LANES:
        raise DeadLetterNotFoundError(queue, [key])
    return int(match[1]), int(match[2])


def _raise_first(outcomes: Sequence[bool | BrokerError]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, BrokerError):
            raise BrokerUnavailableError(str(outcome))
