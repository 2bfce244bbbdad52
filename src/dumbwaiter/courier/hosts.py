"""Places per host and per tenant: who hangs, or whose receivers do, must not take the places of the others."""

from __future__ import annotations

from typing import TypeVar

from dumbwaiter.policies.delivering import turn

_Name = TypeVar("_Name")
_FIRST_GUESS = 0.05
_WEIGHT = 0.3
_MOST_REMEMBERED = 1000
_FOR_FIRST_TRIES = 1 / 4
"""The part of all places that no later try takes: what comes for the first time does not wait for what failed."""


class _Line:
    """Those who are posted to under one name, and the imagined line of those who wait for a place there."""

    __slots__ = ("began", "line_end", "seconds")

    def __init__(self) -> None:
        self.began: list[float] = []
        self.seconds = _FIRST_GUESS
        self.line_end = 0.0

    def leave(self, began: float, now: float) -> None:
        self.began.remove(began)
        self.seconds += _WEIGHT * (now - began - self.seconds)

    def turn(self, places: int, now: float) -> float:
        # One that hangs has told nothing yet; how long it has been silent tells.
        seconds = max(self.seconds, now - min(self.began, default=now))
        delay, self.line_end = turn(self.line_end, now, each=seconds / places)
        return delay


class Hosts:
    """Who is being posted to; at most *per_host* at once to each. Times are those of one monotonic clock."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._hosts: dict[str, _Line] = {}

    def __len__(self) -> int:
        """How many hosts are remembered."""
        return len(self._hosts)

    def take(self, host: str, *, now: float) -> bool:
        """Take a place at *host*, if one is free; it is given back with release()."""
        one = self._hosts.setdefault(host, _Line())
        if len(one.began) >= self._per_host:
            return False
        one.began.append(now)
        return True

    def release(self, host: str, *, began: float, now: float) -> None:
        """Give the place back that was taken when it *began*."""
        self._hosts[host].leave(began, now)
        self._hosts = _remembered(self._hosts, now)

    def turn(self, host: str, *, now: float) -> float:
        """In how many seconds a message that found no place at *host* shall come back."""
        return self._hosts[host].turn(self._per_host, now)


class Tenants:
    """Whose notifications are being posted, of *concurrency* places in all. Times as with Hosts.

    A tenant takes a place only while it holds fewer than are free. So one alone gets half of them, n get 1/(n+1) each,
    and whoever comes next finds a place although others hang. This is the dynamic threshold of shared buffers
    (Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998) with the factor 1.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._taken = 0
        self._tenants: dict[str | None, _Line] = {}

    def take(self, tenant: str | None, *, is_first_try: bool, now: float) -> bool:
        """Take a place for *tenant*, if it may have one more; it is given back with release()."""
        one = self._tenants.setdefault(tenant, _Line())
        free = self._concurrency - self._taken
        kept = 0 if is_first_try else int(self._concurrency * _FOR_FIRST_TRIES)
        if free <= kept or len(one.began) >= free:
            return False
        one.began.append(now)
        self._taken += 1
        return True

    def release(self, tenant: str | None, *, began: float, now: float) -> None:
        """Give the place back that was taken when it *began*."""
        self._tenants[tenant].leave(began, now)
        self._taken -= 1
        self._tenants = _remembered(self._tenants, now)

    def give_back(self, tenant: str | None, *, began: float) -> None:
        """Give back a place that was not used: nothing is learnt from how long it was held."""
        self._tenants[tenant].began.remove(began)
        self._taken -= 1

    def turn(self, tenant: str | None, *, now: float) -> float:
        """In how many seconds a message of *tenant* that found no place shall come back."""
        one = self._tenants[tenant]
        return one.turn(max(len(one.began), 1), now)


def _remembered(lines: dict[_Name, _Line], now: float) -> dict[_Name, _Line]:
    if len(lines) <= _MOST_REMEMBERED:
        return lines
    return {name: one for name, one in lines.items() if one.began or one.line_end > now}
