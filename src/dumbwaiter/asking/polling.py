"""Looking again and again for what nobody announces: the pauses between the looks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from dumbwaiter.policies.polling import Pace, fitted, next_pause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from dumbwaiter.asking.patience import Patience

T = TypeVar("T")


class Polling:
    """The pauses of one who looks at *pace*, for as long as *patience* lasts (None: for ever)."""

    def __init__(self, pace: Pace, *, patience: Patience | None = None) -> None:
        self._pace = pace
        self._patience = patience
        self._before: float | None = None

    async def pause(self, *, found: bool = False, wakes: Collection[asyncio.Future[Any]] = ()) -> bool:
        """Wait until it is time to look again, or until one of *wakes* is done; *found*: the last look found something.

        False, at once, when patience is over. The futures are not touched, and their errors are not raised.
        """
        pause = self._before = next_pause(self._pace, self._before, found=found)
        if self._patience is not None:
            left = self._patience.left
            if left <= 0.0:
                return False
            pause = fitted(pause, self._pace, left)
        if wakes:
            await asyncio.wait(wakes, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(pause)
        return True


async def until_found(
    look: Callable[[], Awaitable[T | None]],
    polling: Polling,
    wakes: Callable[[], Collection[asyncio.Future[Any]]] = tuple,
) -> T:
    """What *look* finds at last; None: nothing yet. A pause ends early when one of what *wakes* returns is done.

    Raises TimeoutError when the patience of *polling* is over.
    """
    while (found := await look()) is None:
        if not await polling.pause(wakes=wakes()):
            raise TimeoutError
    return found
