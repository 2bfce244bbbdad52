"""Sending again while the broker is away: the same request, until its caller's patience is over."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import TYPE_CHECKING, TypeVar

from dumbwaiter.asking.patience import Patience
from dumbwaiter.errors import BrokerUnavailableError, PredictionTimeoutError
from dumbwaiter.policies.backing_off import back_off
from dumbwaiter.policies.polling import Pace, fitted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_PACE = Pace(0.1, 2.0)


async def while_away(send: Callable[[], Awaitable[T]], timeout: float, *, id_: str) -> T:
    """What *send* returns, which hands in the request *id_*. It is called again and again while the broker is
    unavailable, for *timeout* seconds, and is to keep to them by itself.

    A request may have arrived although its sending failed: then the model may run twice. Raises
    BrokerUnavailableError when time is up, and at once whatever else *send* raises.
    """
    patience = Patience(timeout)
    last: BrokerUnavailableError | None = None
    for tries in itertools.count(1):
        try:
            return await send()
        except BrokerUnavailableError as error:
            last = error
        except PredictionTimeoutError as error:
            if last is None:
                raise
            raise PredictionTimeoutError(f"{error}; meanwhile the broker was unavailable: {last}") from last
        pause = back_off(tries, first=_PACE.first, longest=_PACE.last, luck=random.random())  # noqa: S311
        await asyncio.sleep(fitted(pause, _PACE, patience.left))
        if patience.left <= 0.0:
            times = "once" if tries == 1 else f"{tries} times"
            raise BrokerUnavailableError(
                f"the broker was unavailable for request {id_!r}, which was tried {times} within {patience:g} s; "
                f"whether a worker has it is unknown: {last}"
            ) from last
    raise AssertionError  # itertools.count() does not end
