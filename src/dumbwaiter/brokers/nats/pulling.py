"""Pulling messages of one queue: one look at a time for all who wait, and then one standing pull in each lane.

A lane that was found empty gets a standing pull for a single message; until that is answered the lane is known to be
empty, and costs no further question. When nobody waits any more the subject of the standing pulls is given up, so that
the server forgets them; what comes by them all the same is handed back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

from dumbwaiter.brokers.nats.answers import NO_RESPONDERS, Several, status_of
from dumbwaiter.brokers.nats.layout import AGAIN_LANE, LANE_NAMES, Names
from dumbwaiter.brokers.receivers import Receivers
from dumbwaiter.errors import BrokerError, BrokerUnavailableError
from dumbwaiter.message import Delivery
from dumbwaiter.policies.lanes import order

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from dumbwaiter.brokers.nats.answers import Question
    from dumbwaiter.brokers.nats.link import Link

_LARGEST_PULL = 1000
_LARGEST_PULL_NBYTES = 16 * 1024 * 1024
"""The server cuts off whoever has more than 64 MiB to read."""
_STANDING = 10.0
"""Seconds after which a standing pull is answered with nothing, and put anew."""
_FORGOTTEN = 1.2 * _STANDING
"""Seconds after which one that was never answered is put anew: the server has forgotten it."""
_LINGER = 0.01
"""Seconds for which standing pulls outlive their receivers: mostly the next one comes within that."""
_FULL = ("404", "408")
_NS = 1_000_000_000

Arrived: TypeAlias = tuple["Msg", float]
"""A message and when, in time.monotonic(), it was still in the server for sure: its lock began after that."""


class Puller:
    """Receives from the queue of *names*.

    *prepare* sees to it that the consumers are there, and tells how long their locks last; *accept* makes deliveries of
    what arrived; *missing* is the error for consumers that are not there; *give_back* hands back, uncounted, what came
    for nobody.
    """

    def __init__(
        self,
        link: Link,
        names: Names,
        *,
        prepare: Callable[[], Awaitable[tuple[float, ...]]],
        accept: Callable[[list[Arrived]], Awaitable[list[Delivery]]],
        missing: Callable[[], Awaitable[BrokerError]],
        give_back: Callable[[list[Delivery]], object],
    ) -> None:
        self._link = link
        self._names = names
        self._prepare, self._accept, self._missing, self._give_back = prepare, accept, missing, give_back
        self._receivers: Receivers[Delivery] = Receivers(changed=self._on_change, give_back=give_back)
        self._turn = 0
        self._is_prepared = False
        self._own_lock = _STANDING
        self._serving: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._arrived: list[Arrived] = []
        self._pulls: Pulls | None = None
        self._standing: StandingPulls | None = None
        self._retiring: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def receive(self, max_messages: int, max_wait: float) -> list[Delivery]:
        """As the contract says of a broker that is open."""
        return await self._receivers.wait(max_messages, max_wait)

    def restart(self, error: BrokerError) -> None:
        """The connection broke: standing pulls are gone, and who waits learns why."""
        self._is_prepared = False
        self._pulls = self._standing = None
        self._arrived.clear()
        self._receivers.fail(error)
        self._news.set()

    async def close(self, error: BrokerError) -> None:
        """Give *error* to those who wait. What arrives still is not handed out any more."""
        self._receivers.fail(error)
        self._news.set()
        # A look is not cut short: what it finds is held then, and handed back with all the rest.
        if self._serving is not None:
            await asyncio.wait([self._serving])
        if self._retiring is not None:
            self._retiring.cancel()
        self._spawn(self._retire)
        await asyncio.wait(self._ending)

    def _on_change(self) -> None:
        """A receiver came, left or runs out of patience."""
        if self._receivers.wanted and self._retiring is not None:
            self._retiring.cancel()
            self._retiring = None
        if self._serving is not None:
            if self._receivers.is_hurried or not self._receivers.wanted:
                self._news.set()
        elif self._receivers.wanted:
            self._serving = asyncio.create_task(self._serve())

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
                    await self._stand()
                    await self._wait_for_news()
        except Exception as error:  # whoever waits must not wait in vain, whatever the client raises
            self._is_prepared = False
            self._receivers.fail(error)
        finally:
            self._serving = None
            self._retiring = asyncio.get_running_loop().call_later(_LINGER, self._retire_soon)

    async def _wait_for_news(self) -> None:
        """Wait, and ask now and then, so that of what comes it is known well since when it has been locked."""
        while not self._news.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._own_lock / 4):
                    await self._news.wait()
                    return
            await self._link.tell([])
            if self._standing is None or not self._standing.is_complete:
                return

    async def _look(self) -> list[Delivery]:
        """What has arrived, and then lane by lane what there is, until all who wait have enough."""
        if not self._is_prepared:
            self._own_lock = min(await self._prepare())
            self._is_prepared = True
        wanted = min(self._receivers.wanted, _LARGEST_PULL)
        found, self._arrived = self._arrived[:wanted], self._arrived[wanted:]
        lanes = (AGAIN_LANE, *order(self._turn))
        self._turn += 1
        try:
            for lane in lanes:
                if len(found) >= wanted:
                    break
                if self._standing is None or self._receivers.is_hurried or not self._standing.is_in(lane):
                    found += await self._pull(lane, wanted - len(found))
        except BrokerError:
            if not found:
                raise
        return await self._accept(found) if found else []

    async def _pull(self, lane: int, count: int) -> list[Arrived]:
        """Up to *count* messages of *lane* that are there now."""
        messages, asked_at, status = await (await self._opened()).pull(lane, count)
        if status is not None and not messages:  # otherwise it says why there are no more of them just now
            if status_of(status) == NO_RESPONDERS:
                raise await self._missing()
            if status_of(status) not in _FULL:
                raise self._refused(status)
        return [(message, asked_at) for message in messages]

    async def _opened(self) -> Pulls:
        if self._pulls is None:
            pulls = Pulls(self._link, self._names, self._on_stray)
            await pulls.open()
            self._pulls = pulls
        return self._pulls

    def _refused(self, status: Msg) -> BrokerUnavailableError:
        words = (status.headers or {}).get("Description", "nothing")
        return BrokerUnavailableError(f"the consumer of queue {self._names.queue!r} says: {words}; receive again")

    async def _stand(self) -> None:
        """Put a standing pull into each lane that has none."""
        if self._standing is None:
            self._standing = standing = StandingPulls(self._link, self._names, self._on_arrival)
            await standing.open()
        await self._standing.fill()

    def _on_arrival(self, pulls: StandingPulls, message: Msg, asked_at: float) -> None:
        """A standing pull was answered, with a message or in vain."""
        if message.reply:
            self._arrived.append((message, max(asked_at, self._link.mark)))
            if pulls is not self._standing:  # nobody waits any more
                self._spawn(self._hand_back_arrived)
        elif pulls is self._standing and status_of(message) not in _FULL:
            # It would be refused again and again. Who waits backs off and comes again.
            self._is_prepared = False
            self._receivers.fail(self._refused(message))
        self._news.set()

    def _on_stray(self, message: Msg) -> None:
        """The answer to a pull whose patience was over."""
        self._arrived.append((message, self._link.mark))
        self._news.set()
        if self._serving is None:
            self._spawn(self._hand_back_arrived)

    def _retire_soon(self) -> None:
        self._retiring = None
        if self._serving is None:
            self._spawn(self._retire)

    async def _retire(self) -> None:
        """Nobody waits: take back the standing pulls, and hand back what they brought."""
        standing, self._standing = self._standing, None
        if standing is not None:
            await standing.close()
        await self._hand_back_arrived()

    async def _hand_back_arrived(self) -> None:
        arrived, self._arrived = self._arrived, []
        if arrived:
            self._give_back(await self._accept(arrived))

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        async def quietly() -> None:
            with contextlib.suppress(BrokerError):  # the connection broke; the server takes them back by itself
                await work()

        task = asyncio.create_task(quietly())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class Pulls:
    """Pulls of what is there now, one at a time, on a subject of their own. *stray* gets what came too late."""

    def __init__(self, link: Link, names: Names, stray: Callable[[Msg], object]) -> None:
        self._link = link
        self._names = names
        self._stray = stray
        self._subject = f"{link.new_inbox()}."
        # At least one message with all that is written around it.
        self._max_nbytes = max(_LARGEST_PULL_NBYTES, 2 * int(link.info["max_payload"]))
        self._number = 0
        self._answers: Several | None = None

    async def open(self) -> None:
        """Listen for what comes."""
        await self._link.listen(f"{self._subject}*", self._on_message)

    async def pull(self, lane: int, count: int) -> tuple[list[Msg], float, Msg | None]:
        """Up to *count* messages of *lane*, when they were asked for, and the status that ended them, if any did."""

        def is_last(messages: list[Msg]) -> bool:
            return not messages[-1].reply or len(messages) == count

        self._number += 1
        self._answers = answers = Several(is_last)
        request = {"batch": count, "no_wait": True, "max_bytes": self._max_nbytes}
        question = pull_question(self._link, self._names, lane, request)
        try:
            await self._link.ask_elsewhere(question, f"{self._subject}{self._number}", answers)
        except BrokerError:
            if not answers.messages:
                raise
        finally:
            self._answers = None
        messages = answers.messages
        return messages, answers.sent_at, None if messages[-1].reply else messages.pop()

    async def _on_message(self, message: Msg) -> None:
        answers = self._answers
        is_current = bool(message.reply) or message.subject == f"{self._subject}{self._number}"
        if answers is not None and is_current:
            self._link.heard(answers)
            answers.put(0, message)
        elif message.reply:
            self._stray(message)


class StandingPulls:
    """Pulls that wait in the server for one message each, on a subject of their own."""

    def __init__(self, link: Link, names: Names, arrived: Callable[[StandingPulls, Msg, float], object]) -> None:
        self._link = link
        self._names = names
        self._on_arrival = arrived
        self._subject = f"{link.new_inbox()}."
        self._asked_at: dict[int, float] = {}
        self._subscription: Subscription | None = None

    def is_in(self, lane: int) -> bool:
        """Whether a pull stands in *lane*, so that there is nothing in it."""
        return time.monotonic() < self._asked_at.get(lane, -_FORGOTTEN) + _FORGOTTEN

    @property
    def is_complete(self) -> bool:
        """Whether a pull stands in each lane."""
        return all(map(self.is_in, range(len(LANE_NAMES))))

    async def open(self) -> None:
        """Listen for what comes."""
        self._subscription = await self._link.listen(f"{self._subject}*", self._on_message)

    async def fill(self) -> None:
        """Pull in each lane in which no pull stands."""
        for lane in range(len(LANE_NAMES)):
            if not self.is_in(lane):
                request = {"batch": 1, "expires": int(_STANDING * _NS)}
                subject, payload, _ = pull_question(self._link, self._names, lane, request)
                self._asked_at[lane] = time.monotonic()
                await self._link.publish(subject or "", payload, reply=f"{self._subject}{lane}")

    async def close(self) -> None:
        """Have the server forget the pulls; what is under way comes still."""
        if self._subscription is not None:
            await self._link.drain(self._subscription)

    async def _on_message(self, message: Msg) -> None:
        name = message.subject.split(".")[1] if message.reply else ""
        lane = LANE_NAMES.index(name) if name else int(message.subject[len(self._subject) :])
        self._on_arrival(self, message, self._asked_at.pop(lane, 0.0))


def pull_question(link: Link, names: Names, lane: int, request: object) -> Question:
    """The question for messages of *lane*."""
    return link.api(f"CONSUMER.MSG.NEXT.{names.stream}.{LANE_NAMES[lane]}", request)
