"""Messages in hand: their locks are kept, the broker is insisted on, and its outages are waited for.

Used by whatever receives from a queue. It decides nothing about what becomes of a message.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NoReturn, TypeVar

from dumbwaiter.brokers.contract import Broker
from dumbwaiter.errors import BrokerError, BrokerUnavailableError, LockLostError, QueueNotFoundError
from dumbwaiter.message import Delivery
from dumbwaiter.policies.retrying import back_off

T = TypeVar("T")
RETRY_EVERY = 0.5
"""The pause, in seconds, of those who insist."""
LONGEST_PAUSE = 5.0
"""The longest pause between two tries during an outage, in seconds."""
_log = logging.getLogger(__name__)


class Held:
    """One delivery in hand; *delivery* is replaced when its lock is renewed, *lost* set when the lock is gone.

    *closing* is set when the broker is being told how the message ends: from then on a lost lock is no news.
    """

    __slots__ = ("closing", "delivery", "lost")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.lost = False
        self.closing = False

    @property
    def is_ours(self) -> bool:
        """Whether it is still to be kept, and then to be settled."""
        return not self.lost and not self.closing


H = TypeVar("H", bound=Held)


async def renew(broker: Broker, held: Sequence[H]) -> list[H]:
    """Renew the locks of *held*; those that turn out to be lost, which are marked so.

    Those whose settlement has begun meanwhile are not among them. A queue that is gone took the locks with it, but
    nobody else holds its messages either: none is lost, and what is in hand may be finished. Raises
    BrokerUnavailableError.
    """
    if not held:
        return []
    asked = [one.delivery for one in held]
    gone: set[tuple[str, str]] = set()
    try:
        renewed = await broker.renew_lock(asked)
    except LockLostError as error:
        renewed = error.renewed
        gone = {_key(delivery) for delivery in error.deliveries}
    except QueueNotFoundError:
        return []
    pairs = list(zip(held, asked, strict=True))
    kept = [one for one, delivery in pairs if _key(delivery) not in gone]
    for one, delivery in zip(kept, renewed, strict=True):
        one.delivery = delivery
    lost = [one for one, delivery in pairs if _key(delivery) in gone and not one.closing]
    for one in lost:
        one.lost = True
    return lost


async def keep_locks(
    broker: Broker, held: Iterable[H], *, on_lost: Callable[[Sequence[H]], Awaitable[None]] | None = None
) -> NoReturn:
    """Renew the locks of those of *held* that are ours, every third of their length, until cancelled.

    *held* is looked through anew each time: give it a view of what is in hand. While the broker is unavailable they
    are tried four times as often. *on_lost* hears of those that others hold by now.
    """
    usual, soon = broker.lock_duration / 3, broker.lock_duration / 12
    pause = usual
    while True:
        await asyncio.sleep(pause)
        pause = usual
        ours = [one for one in held if one.is_ours]
        try:
            lost = await renew(broker, ours)
        except BrokerUnavailableError as error:
            _log.warning("%d lock(s) could not be renewed, trying again soon: %s", len(ours), error)
            pause = soon
            continue
        if lost:
            _log.warning("%d lock(s) lost; others have these messages by now", len(lost))
            if on_lost is not None:
                await on_lost(lost)


async def insist(call: Callable[[], Awaitable[T]], *, within: float, may_pass: Callable[[Exception], bool]) -> T:
    """What *call* returns; while it raises what *may_pass* says may pass, call it again for *within* seconds."""
    give_up_at = time.monotonic() + within
    while True:
        try:
            return await call()
        except Exception as error:
            if not may_pass(error) or time.monotonic() > give_up_at:
                raise
        await asyncio.sleep(RETRY_EVERY)


def can_postpone(broker: Broker) -> bool:
    """Whether a message can wait for its turn in the queue, and lose nothing by it."""
    return broker.capabilities.abandon_delay and broker.capabilities.uncounted_abandon


async def insist_on_broker(
    verb: Callable[[Sequence[T]], Awaitable[object]], batch: Sequence[T], *, within: float
) -> list[Delivery]:
    """Call *verb* with *batch*, unless that is empty; while the broker is unavailable again, for *within* seconds.

    Returns the deliveries that others hold by now, and those whose queue is gone. Renewing keeps lock tokens, so those
    of *batch* stay good whatever is renewed meanwhile. Raises BrokerUnavailableError when time is up, and what else
    *verb* raises.
    """
    if not batch:
        return []
    try:
        await insist(lambda: verb(batch), within=within, may_pass=_is_outage)
    except LockLostError as error:
        return list(error.deliveries)
    except QueueNotFoundError:
        gone: list[Delivery] = [one for one in batch if isinstance(one, Delivery)]
        if len(gone) < len(batch):  # something is to be sent there, and was not
            raise
        return gone
    return []


class Outage:
    """The failures in a row of one who calls over and over a broker that is unavailable, or whose queue is gone, or
    that fails in another way: whatever lies in its queue, it ends nobody who serves that.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._kind: type[BrokerError] | None = None

    async def pause(self, error: BrokerError) -> None:
        """It failed once more: sleep before the next try, longer each time. The 1st, 10th and 100th are logged, and
        those of another kind than the one before.
        """
        self._failures += 1
        before, self._kind = self._kind, type(error)
        if self._failures in {1, 10, 100} or before is not self._kind:
            if isinstance(error, QueueNotFoundError):
                _log.error("the queue %r is gone, as a whole or in part; it is made again", error.queue)
            elif isinstance(error, BrokerUnavailableError):
                _log.warning("the broker is unavailable, trying again: %s", error)
            else:
                _log.error("nothing can be received, trying again: %s: %s", type(error).__name__, error)
        await asyncio.sleep(back_off(self._failures, luck=0.5, longest=LONGEST_PAUSE))

    def over(self) -> None:
        """It worked; after failures that is logged too."""
        if self._failures:
            _log.info("the broker is back: it works again after %d failed call(s)", self._failures)
        self._failures = 0
        self._kind = None


def _is_outage(error: Exception) -> bool:
    return isinstance(error, BrokerUnavailableError)


def _key(delivery: Delivery) -> tuple[str, str]:
    return delivery.message.id, delivery.lock_token
