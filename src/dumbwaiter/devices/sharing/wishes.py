"""What is asked of an admission and not granted yet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Generic, TypeVar

from dumbwaiter.devices.admission import Grant, Place

T = TypeVar("T", Grant, Place)


class Wish(Generic[T]):
    """A grant for *want* messages, or a place for a runner. *polls*: nobody knows whether there is work for it."""

    def __init__(self, want: int, *, polls: bool) -> None:
        self.want = want
        self.polls = polls
        self.granted: asyncio.Future[T] = asyncio.get_running_loop().create_future()


class Wishes:
    """Wishes for grants, in order; those that have work come before those that only look for some."""

    def __init__(self) -> None:
        self._wishes: list[Wish[Grant]] = []

    def __len__(self) -> int:
        return len(self._wishes)

    def __iter__(self) -> Iterator[Wish[Grant]]:
        return iter(self._wishes)

    def add(self, wish: Wish[Grant]) -> None:
        """One more."""
        self._wishes.append(wish)

    def remove(self, wish: Wish[Grant]) -> None:
        """It was granted, or is not wanted any more. Twice is no error."""
        if wish in self._wishes:
            self._wishes.remove(wish)

    def first(self, *, may_poll: bool) -> Wish[Grant] | None:
        """The next one to be granted; none that only polls unless that may be."""
        by_turn = sorted(self._wishes, key=lambda wish: wish.polls)
        return next((wish for wish in by_turn if may_poll or not wish.polls), None)
