"""All connections at once: who is too slow, who makes room for a newcomer, and who gets in when nobody can.

A request that only waits for what may come, a long poll or a stream of events, gives way when its connection is needed.
Of all callers the one with the most of them loses one, the oldest: so nobody's waiting takes the room of others.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from dumbwaiter.gateway.http.problem_codes import RETRY_SOON
from dumbwaiter.gateway.http.problems import Problem, ProblemError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from dumbwaiter.gateway.http.connection import Connection

CALLER = "dumbwaiter.caller"
"""The key of a scope's caller, where it has one: an object with an *owner*, the same for all that are theirs."""
BESIDES = 8
"""So many connections beyond the most get in as long as they ask for nothing but whether the gateway is well."""
_WAITS = "dumbwaiter.waits"
_HEALTH = b"/v2/health/"


class Admission(enum.Enum):
    """What a new connection may do."""

    FULL = enum.auto()
    HEALTH = enum.auto()
    NONE = enum.auto()


class Wait:
    """A request that does nothing but wait, *since* then (time.monotonic). It ends soon after *give_way* is done."""

    __slots__ = ("give_way", "since")

    def __init__(self) -> None:
        self.since = time.monotonic()
        self.give_way: asyncio.Future[None] = asyncio.get_running_loop().create_future()


@contextlib.contextmanager
def only_waiting(scope: Any) -> Iterator[asyncio.Future[None]]:
    """The request of *scope* waits within, and gives way: it ends soon once what this gives is done."""
    wait = scope[_WAITS] = Wait()
    try:
        yield wait.give_way
    finally:
        scope.pop(_WAITS, None)


def wait_of(scope: Any) -> Wait | None:
    """What only_waiting() says of *scope*; None while it does something else."""
    wait: Wait | None = scope.get(_WAITS)
    return wait


def admit(connections: Collection[Any], newcomer: Connection, most: int) -> Admission:
    """What *newcomer*, one of *connections*, may do, of which there should be no more than *most*."""
    if len(connections) <= most or _make_room(connections, newcomer):
        return Admission.FULL
    besides = [one for one in connections if one.is_besides and one is not newcomer and not one.is_closing()]
    if len(besides) < BESIDES or _close_longest(one for one in besides if one.asks_for_nothing()):
        return Admission.HEALTH
    return Admission.NONE


def is_about_health(url: bytes) -> bool:
    """Whether a request for *url* asks whether the gateway is well."""
    return url.startswith(_HEALTH)


def too_many(most: int) -> Problem:
    """What a newcomer is told when there is no room."""
    detail = f"this gateway serves at most {most} connections at once"
    return Problem(status=503, code="too-many-connections", detail=detail, retry_after=RETRY_SOON)


def making_room() -> ProblemError:
    """What is told to whoever only waits when others need the connection."""
    detail = "others need the connection that waits for this prediction, which goes on; ask again"
    return ProblemError(Problem(status=503, code="too-many-connections", detail=detail, retry_after=RETRY_SOON))


def sweep(connections: Iterable[Any], now: float) -> int:
    """Close those connections whose caller was too slow by *now* (time.monotonic); returns how many."""
    overdue = [connection for connection in connections if connection.is_overdue(now)]
    for connection in overdue:
        connection.expire()
    return len(overdue)


def _make_room(connections: Iterable[Any], newcomer: Connection) -> bool:
    """Close the connection, but *newcomer*, that has been idle or in its head for longest; where none is, one that only
    waits. False if there is none of these either.
    """
    others = [one for one in connections if one is not newcomer and not one.is_besides]
    return _close_longest(one for one in others if one.asks_for_nothing()) or _end_a_wait(others)


def _close_longest(idle: Iterable[Any]) -> bool:
    longest = min(idle, key=lambda one: one.phase_since, default=None)
    if longest is None:
        return False
    longest.leave()
    return True


def _end_a_wait(connections: Iterable[Any]) -> bool:
    waiting = [(one, scope) for one in connections if (scope := one.scope_that_waits()) is not None]
    if not waiting:
        return False
    owners = [_owner_of(scope) for _, scope in waiting]
    ((greediest, _),) = Counter(owners).most_common(1)
    of_them = (one for one, owner in zip(waiting, owners, strict=True) if owner == greediest)
    connection, scope = min(of_them, key=lambda one: one[1][_WAITS].since)
    connection.give_way(scope.pop(_WAITS))
    return True


def _owner_of(scope: Any) -> object:
    return getattr(scope.get(CALLER), "owner", None)
