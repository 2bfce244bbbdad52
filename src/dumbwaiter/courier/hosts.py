"""Places per host: a host that hangs must not take those of the others."""

from __future__ import annotations

from dumbwaiter.policies.delivering import turn

_FIRST_GUESS = 0.05
_WEIGHT = 0.3
_MOST_REMEMBERED = 1000


class _Host:
    __slots__ = ("began", "line_end", "seconds")

    def __init__(self) -> None:
        self.began: list[float] = []
        self.seconds = _FIRST_GUESS
        self.line_end = 0.0


class Hosts:
    """Who is being posted to; at most *per_host* at once to each. Times are those of one monotonic clock."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._hosts: dict[str, _Host] = {}

    def __len__(self) -> int:
        """How many hosts are remembered."""
        return len(self._hosts)

    def take(self, host: str, *, now: float) -> bool:
        """Take a place at *host*, if one is free; it is given back with release()."""
        one = self._hosts.setdefault(host, _Host())
        if len(one.began) >= self._per_host:
            return False
        one.began.append(now)
        return True

    def release(self, host: str, *, began: float, now: float) -> None:
        """Give the place back that was taken when it *began*."""
        one = self._hosts[host]
        one.began.remove(began)
        one.seconds += _WEIGHT * (now - began - one.seconds)
        if len(self._hosts) > _MOST_REMEMBERED:
            self._hosts = {name: one for name, one in self._hosts.items() if one.began or one.line_end > now}

    def turn(self, host: str, *, now: float) -> float:
        """In how many seconds a message that found no place at *host* shall come back."""
        one = self._hosts[host]
        # A host that hangs has told nothing yet; how long it has been silent tells.
        seconds = max(one.seconds, now - min(one.began, default=now))
        delay, one.line_end = turn(one.line_end, now, each=seconds / self._per_host)
        return delay
