"""All connections at once: who is too slow, and who makes room for a newcomer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dumbwaiter.gateway.http.connection import Connection


def make_room(connections: Iterable[Any], newcomer: Connection) -> bool:
    """Close the connection, but *newcomer*, that has been idle or in its head for longest; False if none is."""
    idle = [one for one in connections if one is not newcomer and one.asks_for_nothing()]
    if not idle:
        return False
    min(idle, key=lambda one: one.phase_since).give_way()
    return True


def sweep(connections: Iterable[Any], now: float) -> int:
    """Close those connections whose caller was too slow by *now* (time.monotonic); returns how many."""
    overdue = [connection for connection in connections if connection.is_overdue(now)]
    for connection in overdue:
        connection.expire()
    return len(overdue)
