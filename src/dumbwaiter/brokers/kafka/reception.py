"""Receiving from one queue: one look at a time for all who wait.

What waits is known from the ledger, and from those who send by dumbwaiter, for they say so there. Other producers do
not; so while somebody waits, the brokers are asked now and then where the lanes end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from dumbwaiter.brokers.kafka.ledger import Taken
from dumbwaiter.brokers.kafka.replica import Replica
from dumbwaiter.brokers.receivers import Receivers
from dumbwaiter.errors import BrokerError
from dumbwaiter.message import Delivery
from dumbwaiter.tasks import end

LOOK_EVERY = 0.25
"""Seconds after which those who wait see what other producers have sent."""
_AGAIN_AFTER = 0.02


class Reception:
    """Those who wait for *replica*'s queue. *accept* makes deliveries of what a Take got; *give_back* hands back what
    was handed to nobody.
    """

    def __init__(
        self,
        replica: Replica,
        *,
        lock_duration: float,
        accept: Callable[[Replica, list[Taken], float], Coroutine[Any, Any, list[Delivery]]],
        give_back: Callable[[list[Delivery]], object],
    ) -> None:
        self._replica = replica
        self._length = max(1, round(lock_duration * 1000))
        self._lock_duration = lock_duration
        self._accept = accept
        self._news = asyncio.Event()
        self._receivers: Receivers[Delivery] = Receivers(changed=self._on_changed, give_back=give_back)
        self._give_back = give_back
        self._serving: asyncio.Task[None] | None = None
        self._looked_at = 0.0
        self._was_in_vain = False
        replica.listeners.append(self._news.set)

    async def receive(self, limit: int, max_wait: float) -> list[Delivery]:
        """As the contract says."""
        return await self._receivers.wait(limit, max_wait)

    async def close(self, error: BrokerError) -> None:
        """Whoever waits gets *error*."""
        self._receivers.fail(error)
        await end([self._serving])
        self._receivers.fail(error)

    def fail(self, error: BrokerError) -> None:
        """Whoever waits gets *error*."""
        self._receivers.fail(error)

    def _on_changed(self) -> None:
        self._news.set()
        if self._serving is None and self._receivers.wanted:
            self._serving = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        try:
            while self._receivers.wanted:
                self._news.clear()
                try:
                    await self._turn()
                except BrokerError as error:
                    self._receivers.fail(error)
                except Exception as error:  # a fault of ours must not leave anybody waiting for ever
                    self._receivers.fail(error)
                    raise
        finally:
            self._serving = None

    async def _turn(self) -> None:
        # Others may be faster each time: whose patience is over gets a look then, which may be in vain.
        if self._is_any_ready() and not (self._was_in_vain and self._receivers.is_hurried):
            if not await self._take():
                # Others were faster; or what is over by our reckoning is not yet over by the broker's clock.
                await asyncio.sleep(_AGAIN_AFTER)
        elif self._receivers.is_hurried or time.monotonic() - self._looked_at >= LOOK_EVERY:
            await self._look()
        else:
            await self._wait()

    def _is_any_ready(self) -> bool:
        return self._replica.known.has_ready(self._replica.now, self._replica.ends)

    async def _look(self) -> None:
        self._receivers.begin_look()
        self._was_in_vain = False
        await self._replica.catch_up()
        self._looked_at = time.monotonic()
        if not self._is_any_ready() or not await self._take():
            self._receivers.found_nothing()

    async def _take(self) -> bool:
        """Whether there was any."""
        until = time.monotonic() + self._lock_duration
        taken = await self._replica.take(self._receivers.wanted, self._length)
        self._was_in_vain = not taken
        if not taken:
            return False
        left = self._receivers.hand_out(await self._accept(self._replica, taken, until))
        if left:
            self._give_back(left)
        return True

    async def _wait(self) -> None:
        """Until something may have changed."""
        until = self._looked_at + LOOK_EVERY
        if (change := self._replica.known.next_change()) is not None:
            until = min(until, time.monotonic() + (change - self._replica.now) / 1000)
        alarm = asyncio.get_running_loop().call_later(max(0.0, until - time.monotonic()), self._news.set)
        try:
            await self._news.wait()
        finally:
            alarm.cancel()
