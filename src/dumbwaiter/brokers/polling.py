"""Receiving from a product that is asked for messages: one look at a time for all who wait, lane by lane, and then a
long poll in each lane.

A lane that was found empty gets a long poll, which the product answers as soon as something comes; until then the lane
is known to be empty, and costs no further request. A long poll is never cut off: what the product gives to a request
that was cut is locked for nobody. So it stands to its end, and what comes by it for nobody goes back at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from dumbwaiter.brokers.receivers import Receivers
from dumbwaiter.errors import BrokerError
from dumbwaiter.message import Delivery
from dumbwaiter.policies.lanes import LANES, order

A = TypeVar("A")
T = TypeVar("T")

_TICK = 0.1


class Came(NamedTuple, Generic[A]):
    """What came by *lane*, and a time, in time.monotonic(), after which its lock surely began."""

    one: A
    lane: int
    since: float


class Source(Protocol[T]):
    """A queue of the product, with LANES lanes."""

    at_once: int
    """Requests of one look that may be under way at the same time."""
    largest: int
    """Messages that one request brings at most."""

    async def pull(self, lane: int, count: int, *, is_long: bool) -> list[T]:
        """Lock up to *count* messages of *lane* that are there; *is_long*: wait for the first, for some seconds."""
        ...

    async def accept(self, came: Sequence[Came[T]]) -> list[Delivery]:
        """Deliveries of what *came*."""
        ...

    async def release(self, lane: int, came: Sequence[T]) -> object:
        """Hand back at once what came for nobody, uncounted."""
        ...


class Reception(Generic[T]):
    """Receives from *source*. It does not matter if a lock began *tolerance* seconds before it is known here.

    *give_back* hands back deliveries that came for nobody.
    """

    def __init__(self, source: Source[T], *, tolerance: float, give_back: Callable[[list[Delivery]], object]) -> None:
        self._source = source
        self._give_back = give_back
        self._receivers: Receivers[Delivery] = Receivers(changed=self._on_change, give_back=give_back)
        self._turn = 0
        self._was_full = False
        self._arrived: list[Came[T]] = []
        self._polls: dict[int, asyncio.Task[None]] = {}
        self._found_empty: set[int] = set()
        self._liveliness = Liveliness(tolerance=tolerance)
        self._news = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._is_closed = False

    async def receive(self, max_messages: int, max_wait: float) -> list[Delivery]:
        """As the contract says of a broker that is open."""
        return await self._receivers.wait(max_messages, max_wait)

    @property
    def polls(self) -> list[asyncio.Task[None]]:
        """The long polls that stand: what they bring is handed back, as long as somebody lets them."""
        return list(self._polls.values())

    async def close(self, error: BrokerError) -> None:
        """Give *error* to those who wait."""
        self._is_closed = True
        self._receivers.fail(error)
        self._news.set()
        # A look is not cut short: what it finds is held then, and handed back with all the rest.
        if self._serving is not None:
            await asyncio.wait([self._serving])
        await self._release_arrived()

    def _on_change(self) -> None:
        """A receiver came, left or runs out of patience."""
        if self._serving is not None:
            if self._receivers.is_hurried or not self._receivers.wanted:
                self._news.set()
        elif self._receivers.wanted and not self._is_closed:
            self._serving = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        try:
            while self._receivers.wanted:
                self._news.clear()
                self._receivers.begin_look()
                if found := await self._look():
                    if left := self._receivers.hand_out(found):
                        self._give_back(left)
                    continue
                self._receivers.found_nothing()
                if self._receivers.wanted and not self._arrived:
                    self._stand()
                    await self._news.wait()
        except Exception as error:  # whoever waits must not wait in vain, whatever the client raises
            self._receivers.fail(error)
        finally:
            self._serving = None
        if self._arrived:
            await self._release_arrived()

    async def _look(self) -> list[Delivery]:
        """What has arrived, and then lane by lane what there is, until all who wait have enough."""
        wanted = min(self._receivers.wanted, self._source.largest * self._source.at_once)
        found, self._arrived = self._arrived[:wanted], self._arrived[wanted:]
        lanes = order(self._turn)
        self._turn += 1
        empty, self._found_empty = self._found_empty, set()
        try:
            for lane in lanes:
                is_known = (lane in self._polls or lane in empty) and not self._receivers.is_hurried
                if len(found) < wanted and not is_known:
                    found += await self._pull(lane, wanted - len(found))
        except BrokerError:
            if not found:
                raise
        return await self._source.accept(found) if found else []

    async def _pull(self, lane: int, count: int) -> list[Came[T]]:
        """Up to *count* messages of *lane* that are there now. As many as may be are asked for at once, where the last
        such question was answered in full.
        """
        found: list[Came[T]] = []
        while len(found) < count:
            sizes = self._sizes(count - len(found))
            asked_at = time.monotonic()
            asking = (self._source.pull(lane, size, is_long=False) for size in sizes)
            answers = await asyncio.gather(*asking, return_exceptions=True)
            came = [
                Came(one, lane, asked_at) for some in answers if not isinstance(some, BaseException) for one in some
            ]
            found += came
            self._was_full = len(came) == sum(sizes)
            for error in answers:
                if isinstance(error, BaseException) and not (found and isinstance(error, BrokerError)):
                    raise error
            if not self._was_full:
                break
        return found

    def _sizes(self, count: int) -> list[int]:
        """How many messages each request asks for that together ask for *count*; one, unless there were many before."""
        largest = self._source.largest
        if not self._was_full:
            return [min(count, largest)]
        whole, rest = divmod(count, largest)
        return ([largest] * whole + [rest] * bool(rest))[: self._source.at_once]

    # --- long polls ---

    def _stand(self) -> None:
        """Put a long poll into each lane that has none."""
        count = min(self._source.largest, self._receivers.wanted)
        for lane in range(LANES):
            if lane not in self._polls:
                self._polls[lane] = asyncio.get_running_loop().create_task(self._poll(lane, count))

    async def _poll(self, lane: int, count: int) -> None:
        began = self._liveliness.begin()
        try:
            arrived = await self._source.pull(lane, count, is_long=True)
        except Exception as error:  # as above
            self._liveliness.end(began)
            del self._polls[lane]
            self._receivers.fail(error)
        else:
            since = self._liveliness.end(began)
            del self._polls[lane]
            self._arrived += [Came(one, lane, since) for one in arrived]
            if not arrived:
                self._found_empty.add(lane)
        self._news.set()
        if self._arrived and self._serving is None:
            await self._release_arrived()

    async def _release_arrived(self) -> None:
        """Nobody waits for them any more."""
        arrived, self._arrived = self._arrived, []
        for lane in {came.lane for came in arrived}:
            with contextlib.suppress(BrokerError):  # their locks run out
                await self._source.release(lane, [came.one for came in arrived if came.lane == lane])


class Liveliness:
    """Since when an answer may have lain here unread: whoever was stopped for a while cannot tell when it came.

    It ticks while anything is under way; a tick that comes late shows that nothing was read meanwhile. Stops of up to
    *tolerance* seconds do not matter.
    """

    def __init__(self, *, tolerance: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._tolerance = tolerance
        self._clock = clock
        self._ticked = -math.inf
        self._since: dict[int, float] = {}
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> int:
        """Something is under way from now on: its number."""
        self._number += 1
        self._since[self._number] = math.inf
        if self._timer is None:
            self._ticked = self._clock()
            self._set()
        return self._number

    def end(self, number: int) -> float:
        """It was answered now: no earlier than this."""
        self.tick()
        since = min(self._since.pop(number), self._clock())
        if not self._since and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return since

    def tick(self) -> None:
        """Note a stop that lies behind us, for all that is under way."""
        now = self._clock()
        if now - self._ticked > _TICK + self._tolerance:
            for number, since in self._since.items():
                self._since[number] = min(since, self._ticked)
        self._ticked = now

    def _set(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_TICK, self._run)

    def _run(self) -> None:
        self.tick()
        self._set()


def spawn_end(tasks: Sequence[asyncio.Task[None]], then: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
    """Wait for *tasks*, and do *then*; at once if this is cancelled, as when its event loop ends."""

    async def wait() -> None:
        try:
            if tasks:
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await then()

    return asyncio.get_running_loop().create_task(wait())
