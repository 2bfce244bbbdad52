"""Whether a pool is active, found out by one loop for all streams that follow it.

No broker of ours tells by itself that a message has come to a queue without handing it out, so an empty queue is
glanced at again and again: one question for its counts, and only while somebody follows a pool that has nothing to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from dumbwaiter.demand import PoolView
from dumbwaiter.errors import DumbwaiterError
from dumbwaiter.policies import keda
from dumbwaiter.scaler.looks import SharedLooks
from dumbwaiter.tasks import end

Check = Callable[[PoolView], PoolView]

REPEAT_EVERY = 30.0
"""Seconds after which a stream says again what it said last: whoever lost it, or failed to act on it, gets it again."""
LOOK_AT_NOTHING_EVERY = 10.0
"""Seconds between two whole looks at an idle pool without workers: a glance sees what matters there."""
SHARE = 3.0
"""From one glance, or look, to the next takes at least so many times as long as it takes: slow brokers are spared."""

_log = logging.getLogger("dumbwaiter.scaler")


def is_active(view: PoolView) -> bool:
    """Whether the pool must not have zero workers."""
    return keda.is_active(view.look, view.rules, has_queue=view.has_queue)


class Activity:
    """Whether the pool of *looks* is active. Its loop runs while anybody follows. *check* raises for what is none."""

    def __init__(self, looks: SharedLooks, check: Check, *, look_every: float, glance_every: float) -> None:
        self._looks = looks
        self._check = check
        self._look_every = look_every
        self._glance_every = glance_every
        self._glances = (0.0, 0.0)
        """How long the last two took."""
        self._loop: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._is_closed = False
        self._failure: Exception | None = None
        self._state: bool | None = None
        self.followers = 0
        self.arrived_at = 0.0
        """When the last glance saw something, on time.monotonic(): what was looked at before is out of date."""

    @contextlib.contextmanager
    def followed(self) -> Iterator[Follower]:
        """Follow it until the block ends."""
        self.followers += 1
        if self._loop is None or self._loop.done():
            self._state = self._failure = None
            self._loop = asyncio.create_task(self._follow())
        try:
            yield Follower(self)
        finally:
            self.followers -= 1
            if not self.followers and self._loop is not None:
                self._loop.cancel()
                self._loop = None  # it takes a moment to end, and the next follower needs another one

    async def changed(self, told: bool | None) -> bool | None:
        """What is so now, once it is not what was *told*; None when the scaler stops. Raises what ended the loop."""
        while True:
            changed = self._changed
            if self._is_closed:
                return None
            if self._failure is not None:
                raise self._failure
            if self._state is not None and self._state != told:
                return self._state
            await changed.wait()

    async def close(self) -> None:
        """Tell all followers that it ends."""
        self._is_closed = True
        self._wake()
        await end([self._loop])

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _follow(self) -> None:
        try:
            while True:
                began = time.monotonic()
                view = self._check(await self._looks.view(since=began))
                active = is_active(view)
                self._say(active)
                if active:
                    took = time.monotonic() - began
                    await asyncio.sleep(max(self._look_every, self._glance_every, SHARE * took))
                elif await self._arrives_within(self._patience(view)):
                    self.arrived_at = time.monotonic()
                    self._say(True)
        except Exception as error:  # whatever it is, a stream that stays silent would look like a pool at rest
            if not isinstance(error, DumbwaiterError):
                _log.exception("looking at a pool failed")
            self._failure = error
            self._wake()

    def _say(self, state: bool) -> None:
        if state != self._state:
            self._state = state
            self._wake()

    def _patience(self, view: PoolView) -> float:
        return self._look_every if view.look.current else max(self._look_every, LOOK_AT_NOTHING_EVERY)

    async def _arrives_within(self, seconds: float) -> bool:
        """Glance until something waits; False when it is time for a whole look, which sees more than what waits."""
        until = time.monotonic() + seconds
        spent = 0.0
        while (left := until - time.monotonic()) > 0.0:
            # The pause comes first: a whole look has just been taken, and where it sees nothing of what a glance sees
            # they must not chase each other. One slow glance among quick ones is no slow broker.
            pause = max(self._glance_every, SHARE * min(self._glances)) - spent
            await asyncio.sleep(min(pause, left))
            began = time.monotonic()
            if await self._looks.is_waited_for():
                return True
            spent = time.monotonic() - began
            self._glances = (self._glances[1], spent)
        return False


class Follower:
    """One stream's place in following an Activity: what it was told last."""

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self._told: bool | None = None

    async def next(self) -> bool | None:
        """What to tell next: a change, or the same again after REPEAT_EVERY; None when the scaler stops.

        Raises BrokerError, BlobError, SignalUnknownError, TooSlowError, NoSuchModelError: then nobody can tell.
        """
        try:
            async with asyncio.timeout(REPEAT_EVERY):
                self._told = await self._activity.changed(self._told)
        except TimeoutError:
            if self._told is None:  # nothing to say again yet
                return await self.next()
        return self._told
