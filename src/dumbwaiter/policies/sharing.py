"""Places, in all and at each host, that tenants share: who hangs, or whose servers do, must not take those of others.

For what is posted to callers' servers, and what is fetched from them. Pure; times are in seconds of one monotonic
clock.
"""

from __future__ import annotations

_FIRST_GUESS = 0.05
_WEIGHT = 0.3
_SLOW = 2.0
_MOST_HOSTS = 1000
_MOST_TENANTS = 1000
_MOST_TENANTS_OF_A_HOST = 100
_KEPT = 1 / 4
"""The part of all places that is for the first tries of those who do not hang: they wait for nobody who does."""
LONGEST_TURN = 60.0


class _Line:
    """What is under way for one, and the imagined line of those that wait for a place."""

    __slots__ = ("began", "line_end", "seconds")

    def __init__(self) -> None:
        self.began: list[float] = []
        self.seconds = _FIRST_GUESS
        self.line_end = 0.0

    def leave(self, began: float, now: float) -> None:
        self.began.remove(began)
        self.seconds += _WEIGHT * (now - began - self.seconds)

    def seconds_each(self, now: float) -> float:
        """How long one takes, as far as is known."""
        # One that hangs has told nothing yet; how long it has been silent tells.
        return max(self.seconds, now - min(self.began, default=now))

    def pace(self, now: float) -> float:
        """In so many seconds, on average, a place becomes free."""
        return self.seconds_each(now) / max(len(self.began), 1)

    def is_idle(self, now: float) -> bool:
        return not self.began and self.line_end <= now


class Tenants:
    """Whose messages hold how many of so many *places*.

    A tenant takes a place only while it holds fewer than are free. So one alone gets half of them, n get 1/(n+1) each,
    and whoever comes next finds a place although others hang. This is the dynamic threshold of shared buffers
    (Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998) with the factor 1.
    However many hang, a quarter of the places is left: for first tries of tenants whose own take less than 2 s.
    """

    def __init__(self, places: int, *, remembered: int = _MOST_TENANTS) -> None:
        self._places = places
        self._remembered = remembered
        self._all = _Line()
        self._tenants: dict[str | None, _Line] = {}

    def __len__(self) -> int:
        """How many tenants are remembered."""
        return len(self._tenants)

    def take(self, tenant: str | None, *, is_first_try: bool, now: float) -> bool:
        """Take a place for *tenant*, if it may have one more; it is given back with release()."""
        one = self._tenants.setdefault(tenant, _Line())
        free = self._places - len(self._all.began)
        kept = 0 if is_first_try and one.seconds_each(now) < _SLOW else int(self._places * _KEPT)
        if free <= kept or len(one.began) >= free:
            return False
        one.began.append(now)
        self._all.began.append(now)
        return True

    def release(self, tenant: str | None, *, began: float, now: float) -> None:
        """Give the place back that was taken when it *began*."""
        self._tenants[tenant].leave(began, now)
        self._all.leave(began, now)
        if len(self._tenants) > self._remembered:
            self._tenants = {name: one for name, one in self._tenants.items() if not one.is_idle(now)}

    def give_back(self, tenant: str | None, *, began: float) -> None:
        """Give back a place that was not used: nothing is learnt from how long it was held."""
        self._tenants[tenant].began.remove(began)
        self._all.began.remove(began)

    def turn(self, tenant: str | None, *, now: float) -> float:
        """In how many seconds a message of *tenant* that found no place shall come back: behind its others alone."""
        one = self._tenants[tenant]
        # Who holds no place waits for one of somebody else's.
        pace = (one if one.began else self._all).pace(now)
        delay, one.line_end = turn(one.line_end, now, each=pace)
        return delay

    def are_idle(self, now: float) -> bool:
        """Whether nobody holds a place or waits for one."""
        return all(one.is_idle(now) for one in self._tenants.values())


class Hosts:
    """Who is being asked; at most *per_host* at once of each, which its tenants share as Tenants says."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._hosts: dict[str, Tenants] = {}

    def __len__(self) -> int:
        """How many hosts are remembered."""
        return len(self._hosts)

    def take(self, host: str, tenant: str | None, *, is_first_try: bool, now: float) -> bool:
        """Take a place at *host* for *tenant*, if it may have one more; it is given back with release()."""
        tenants = self._hosts.get(host)
        if tenants is None:
            tenants = self._hosts[host] = Tenants(self._per_host, remembered=_MOST_TENANTS_OF_A_HOST)
        return tenants.take(tenant, is_first_try=is_first_try, now=now)

    def release(self, host: str, tenant: str | None, *, began: float, now: float) -> None:
        """Give the place back that was taken when it *began*."""
        self._hosts[host].release(tenant, began=began, now=now)
        if len(self._hosts) > _MOST_HOSTS:
            self._hosts = {name: tenants for name, tenants in self._hosts.items() if not tenants.are_idle(now)}

    def turn(self, host: str, tenant: str | None, *, now: float) -> float:
        """In how many seconds a message of *tenant* that found no place at *host* shall come back."""
        return self._hosts[host].turn(tenant, now=now)


class SharedPlaces:
    """So many *places* in all, and *per_host* at each host, which tenants share."""

    def __init__(self, places: int, *, per_host: int) -> None:
        self._tenants = Tenants(places)
        self._hosts = Hosts(per_host)

    def take(self, host: str, tenant: str | None, *, is_first_try: bool, now: float) -> float | None:
        """Take a place at *host* for *tenant*, which is given back with release(); or the seconds until its turn."""
        if not self._tenants.take(tenant, is_first_try=is_first_try, now=now):
            return self._tenants.turn(tenant, now=now)
        if not self._hosts.take(host, tenant, is_first_try=is_first_try, now=now):
            self._tenants.give_back(tenant, began=now)
            return self._hosts.turn(host, tenant, now=now)
        return None

    def release(self, host: str, tenant: str | None, *, began: float, now: float) -> None:
        """Give the place back that was taken when it *began*."""
        self._hosts.release(host, tenant, began=began, now=now)
        self._tenants.release(tenant, began=began, now=now)


def turn(line_end: float, now: float, *, each: float) -> tuple[float, float]:
    """When a message that finds its places taken shall come back: the delay, and the new end of the line.

    The line is imagined: whoever is sent away goes to its end, *line_end*, which moves on by *each*, the seconds in
    which one place becomes free. So a long backlog comes back at the pace at which it can be delivered.
    """
    new_end = max(line_end, now) + each
    # Beyond the longest turn all would come at once: the line stays open-ended, but those delays are cut.
    return min(new_end - now, LONGEST_TURN), new_end
