"""Receiving: what the script is asked, and what its answer means."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from dumbwaiter.brokers.redis.connection import Argument
from dumbwaiter.brokers.redis.keys import MOST_ATTRIBUTES, read_fields, too_many
from dumbwaiter.brokers.served import Received
from dumbwaiter.errors import QueueNotFoundError
from dumbwaiter.policies.lanes import HIGH_TURNS, order

MISSING = -1
"""What scripts return when there is no such queue."""
_CLOCK_SECONDS = 60.0
"""For so long the difference of two clocks is taken to stay."""


class Taken(NamedTuple):
    """What a receive found.

    *next_event* is in how many seconds the next lock or delay ends, None if there is none; *is_all* whether nothing
    that is ready was left there.
    """

    received: Sequence[Received]
    next_event: float | None = None
    is_all: bool = False


class Taker:
    """The receives of the broker object *owner*, which lock for *lock_duration* seconds."""

    def __init__(self, owner: str, lock_duration: float) -> None:
        self._owner = owner
        self._lock_duration = lock_duration
        # Not all from the same one: many that begin at once must not come to the low lane together.
        self._turns = itertools.count(secrets.choice(HIGH_TURNS))
        self._receives = itertools.count()
        self._clock = ServerClock()

    def arguments(self, max_messages: int, *, was_woken: bool) -> list[Argument]:
        """Those of the script for up to *max_messages*."""
        tag = f"{self._owner}.{next(self._receives):x}"
        lanes = "".join(map(str, order(next(self._turns))))
        return [max_messages, max(0, round(self._lock_duration * 1000)), tag, lanes, int(was_woken)]

    def read(self, queue: str, answer: Any, asked_at: float, *, has_waited: bool = False) -> Taken:
        """What the script's *answer* says, which was asked for at *asked_at* (monotonic) and perhaps *has_waited* at
        the server. Raises QueueNotFoundError.
        """
        if answer == MISSING:
            raise QueueNotFoundError(queue)
        entries, next_event, is_all, server_ms = answer
        until = asked_at + self._lock_duration
        if has_waited:
            now = time.monotonic()
            began_at = self._clock.here(server_ms / 1000, now)
            until = min(max(asked_at, began_at), now) + self._lock_duration
        else:
            self._clock.note(asked_at, server_ms / 1000)
        received = []
        for token, count, fields in entries:
            lock_token = token.decode()
            attributes, body = read_fields(fields)
            fault = None
            if len(attributes) > MOST_ATTRIBUTES:
                attributes, fault = {}, f"it has {too_many(len(attributes))}"
            received.append(Received(attributes, body, _id_of(lock_token), lock_token, until, count, fault))
        return Taken(received, None if next_event < 0 else next_event / 1000, bool(is_all))


class ServerClock:
    """What the server's clock is here: never later than it is, so that no lock is thought to last longer than it does.

    Both clocks run on their own and may be set, so a difference is forgotten after _CLOCK_SECONDS.
    """

    def __init__(self) -> None:
        self._ahead = float("-inf")
        self._noted_at = float("-inf")

    def note(self, asked_at: float, server: float) -> None:
        """The server said *server* to a question that was asked at *asked_at*, on our clock."""
        ahead = asked_at - server
        if ahead >= self._ahead or asked_at > self._noted_at + _CLOCK_SECONDS:
            self._ahead, self._noted_at = ahead, asked_at

    def here(self, server: float, now: float) -> float:
        """The time here, at the earliest, when the server's clock showed *server*; unknown is very early."""
        return server + self._ahead if now <= self._noted_at + 2 * _CLOCK_SECONDS else float("-inf")


def _id_of(lock_token: str) -> str:
    """What the stream calls the entry of *lock_token*, with its lane unless that is the usual one."""
    lane, place, _ = lock_token.split("|", 2)
    ms, seq = place.split("-")
    return f"{int(ms)}-{int(seq)}{('-high', '', '-low')[int(lane)]}"
