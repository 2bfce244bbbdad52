"""Receivers of one event loop in line. Whoever looks for messages on their behalf hands them out here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from dumbwaiter.errors import BrokerError, BrokerUnavailableError

T = TypeVar("T")


class _Place(Generic[T]):
    """A receiver in line: how much it takes, the look after which it joined, and whether its patience is over."""

    __slots__ = ("future", "is_over", "joined_after", "limit")

    def __init__(self, limit: int, joined_after: int) -> None:
        self.future: asyncio.Future[list[T]] = asyncio.get_running_loop().create_future()
        self.limit = limit
        self.joined_after = joined_after
        self.is_over = False


class Receivers(Generic[T]):
    """Those who wait, first come first served. *changed* is called when one joins, leaves or runs out of patience;
    *give_back* gets what was handed to one that was cancelled meanwhile.

    A receiver leaves with nothing only after a look that began when it stood in line already: so one without any
    patience finds what is there. Call begin_look() before and found_nothing() after each.
    """

    def __init__(self, *, changed: Callable[[], object], give_back: Callable[[list[T]], object]) -> None:
        self._changed = changed
        self._give_back = give_back
        self._places: deque[_Place[T]] = deque()
        self._begun = 0
        self._in_vain = 0

    @property
    def wanted(self) -> int:
        """How much those in line take."""
        return sum(place.limit for place in self._places)

    @property
    def is_hurried(self) -> bool:
        """Whether somebody's patience is over, who may leave after the next look."""
        return any(place.is_over for place in self._places)

    async def wait(self, limit: int, max_wait: float) -> list[T]:
        """Stand in line for at most *max_wait* seconds, and until a look was in vain."""
        place: _Place[T] = _Place(limit, self._begun)
        place.is_over = max_wait <= 0
        self._places.append(place)
        self._changed()
        alarm = asyncio.get_running_loop().call_later(max_wait, self._run_out, place)
        try:
            return await place.future
        except asyncio.CancelledError:
            if place.future.done() and not place.future.cancelled() and place.future.exception() is None:
                self._give_back(place.future.result())
            raise
        finally:
            alarm.cancel()
            if place in self._places:
                self._places.remove(place)
            self._changed()

    def begin_look(self) -> None:
        """Somebody looks for messages from now on."""
        self._begun += 1

    def found_nothing(self) -> None:
        """The look that was begun last found nothing: whose patience is over leaves."""
        self._in_vain = self._begun
        for place in [place for place in self._places if place.is_over and self._was_looked_for(place)]:
            self._serve(place, [])

    def hand_out(self, items: list[T]) -> list[T]:
        """Serve those in line; what is too much."""
        while items and self._places:
            place = self._places[0]
            self._serve(place, items[: place.limit])
            items = items[place.limit :]
        return items

    def fail(self, error: Exception) -> None:
        """Everybody who waits gets *error*, or a BrokerUnavailableError for one that the contract does not know."""
        told = error
        if not isinstance(error, BrokerError):
            told = BrokerUnavailableError(f"receiving failed: {type(error).__name__}: {error}")
            told.__cause__ = error
        while self._places:
            place = self._places.popleft()
            if not place.future.done():
                place.future.set_exception(told)

    def _serve(self, place: _Place[T], items: list[T]) -> None:
        self._places.remove(place)
        if not place.future.done():
            place.future.set_result(items)
        elif items:  # cancelled, and not yet gone
            self._give_back(items)

    def _was_looked_for(self, place: _Place[T]) -> bool:
        return self._in_vain > place.joined_after

    def _run_out(self, place: _Place[T]) -> None:
        place.is_over = True
        if place not in self._places:
            return
        if self._was_looked_for(place):
            self._serve(place, [])
        else:
            self._changed()
