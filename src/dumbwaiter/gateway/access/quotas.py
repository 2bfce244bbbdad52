"""How much each API key may ask: so many predictions a second, and so many in flight.

A gateway counts what passes through it. Where several share the keys, each grants the whole of it.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from typing import TYPE_CHECKING, Self

from dumbwaiter.blobs.acceptances import find_acceptance
from dumbwaiter.blobs.results import has_result
from dumbwaiter.errors import BlobError
from dumbwaiter.gateway.http.problems import Problem, ProblemError
from dumbwaiter.policies.rate_limiting import TokenBucket, full, take

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable
    from types import TracebackType

    from dumbwaiter.blobs.keyring import ApiKey
    from dumbwaiter.blobs.store import BlobStore

READING_COST = 0.1
"""What a request that only reads, or cancels, takes of a key's rate; one that asks a model takes 1."""
LOOK_EVERY = 1.0
"""Seconds between two looks at which of a key's deferred predictions are done."""
LOOKS_AT_ONCE = 32
FORGOTTEN_AFTER = 86400.0
"""A deferred prediction without a result holds its place for so many seconds: its message may have been lost."""
_CANCEL = re.compile("/v1/predictions/[^/]+/cancel")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Place:
    """One place of a key's in-flight quota, held inside ``with``; after stay() until that is told that it is over, and
    after remember() until the result is there.

    Requests *once* for the same idempotency key, a model and its key, share one: their prediction runs once.
    """

    __slots__ = ("_holders", "_usage", "deferred_id", "held_as", "once", "since")

    def __init__(self, usage: Usage | None, once: tuple[str, str] | None = None) -> None:
        self._usage = usage
        self._holders = 0
        self.once = once
        self.since = 0.0 if usage is None else time.monotonic()
        self.deferred_id: str | None = None
        self.held_as: str | None = None

    def remember(self, id_: str) -> None:
        """The prediction *id_* was accepted and nobody waits for it: the place is its own until its result is there."""
        if self._usage is not None:
            self.deferred_id = id_

    def stay(self) -> Callable[[], None] | None:
        """Held beyond ``with``, until what this returns is called: whoever hangs up has asked for the work all the
        same. None: nobody counts this place.
        """
        if self._usage is None:
            return None
        self._holders += 1
        return self._let_go

    def __enter__(self) -> Self:
        self._holders += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()

    def _let_go(self) -> None:
        self._holders -= 1
        if self._usage is not None and not self._holders:
            self._usage.leave(self)


NO_QUOTA = Place(None)
"""The place of whoever has no quota; all of them share it."""


class Usage:
    """What one key uses now."""

    def __init__(self, key: ApiKey, *, now: float) -> None:
        self.in_flight = key.in_flight
        self.bucket: TokenBucket | None = None
        if key.rate is not None:
            self.bucket = full(key.rate, key.burst or max(key.rate, 1.0), now=now)
        self.waiting = 0
        self.deferred: dict[str, Place] = {}
        self.shared: dict[tuple[str, str], Place] = {}
        self.looked_at = float("-inf")
        self.looking = asyncio.Lock()
        self.seconds_each = 0.0

    def take(self, once: tuple[str, str] | None) -> Place:
        """One more place; with *once* to be shared by those who ask the same."""
        self.waiting += 1
        place = Place(self, once)
        if once is not None:
            self.shared[once] = place
        return place

    def shared_by(self, once: tuple[str, str] | None) -> Place | None:
        """The place that those who ask *once* have already."""
        return None if once is None else self.shared.get(once)

    def leave(self, place: Place) -> None:
        """The last one has left *place*, which from now on is held by a deferred prediction, or by nobody."""
        now, id_ = time.monotonic(), place.deferred_id
        if id_ is None:
            self.waiting -= 1
            self._end(place, now)
        elif id_ != place.held_as:
            if place.held_as is None:
                self.waiting -= 1
            else:  # the key has outlived that prediction, and stands for another one
                self.deferred.pop(place.held_as, None)
            place.held_as, place.since = id_, now
            self.deferred[id_] = place

    def done(self, id_: str, now: float) -> None:
        """The deferred prediction *id_* has its result."""
        if (place := self.deferred.pop(id_, None)) is not None:
            self._end(place, now)

    def _end(self, place: Place, now: float) -> None:
        self._learn(now - place.since)
        if place.once is not None and self.shared.get(place.once) is place:
            del self.shared[place.once]

    def is_full(self) -> bool:
        return self.in_flight is not None and self.waiting + len(self.deferred) >= self.in_flight

    def next_place_in(self) -> int:
        """Seconds until a place should be free, at least 1, by how long the last ones were held."""
        return max(math.ceil(self.seconds_each / max(self.in_flight or 1, 1)), 1)

    def _learn(self, seconds: float) -> None:
        self.seconds_each += (seconds - self.seconds_each) * 0.2


class Quotas:
    """The usage of all keys. *store* knows which deferred predictions have their results."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._usages: dict[str, Usage] = {}

    def keep_only(self, key_ids: Container[str]) -> None:
        """Forget the keys that are no more."""
        self._usages = {key_id: usage for key_id, usage in self._usages.items() if key_id in key_ids}

    def charge(self, key: ApiKey, method: str, path: str = "") -> None:
        """Take one request, by its *method* and *path*, off the rate of *key*.

        Raises ProblemError (429 ``rate-limited``).
        """
        usage = self._usage_of(key)
        if usage.bucket is None:
            return
        # Whoever takes back what it asked for saves work, and must not wait for that until it may ask again.
        cost = READING_COST if method in _READING or _CANCEL.fullmatch(path) else 1.0
        wait = take(usage.bucket, cost, now=time.monotonic())
        if wait:
            raise ProblemError(_rate_limited(key, math.ceil(wait)))

    async def occupy(self, key: ApiKey, *, once: tuple[str, str] | None = None) -> Place:
        """A place for one prediction, to be used with ``with``.

        *once* is the model and the idempotency key, where there is one. While a prediction of the same two has a place,
        it is that one; and what is answered already needs none. The store is asked for it only when all are taken.

        Raises ProblemError (429 ``quota-exceeded``).
        """
        usage = self._usage_of(key)
        if usage.in_flight is None:
            return NO_QUOTA
        if (shared := usage.shared_by(once)) is not None:
            return shared
        if usage.is_full() and usage.deferred:
            await self._look(usage)
        if usage.is_full() and once is not None and await self._is_answered(key, once):
            return NO_QUOTA
        # The first one may have come meanwhile.
        if (shared := usage.shared_by(once)) is not None:
            return shared
        if usage.is_full():
            raise ProblemError(_quota_exceeded(key, usage))
        return usage.take(once)

    async def _is_answered(self, key: ApiKey, once: tuple[str, str]) -> bool:
        try:
            accepted = await find_acceptance(self._store, key.tenant, *once)
            return await has_result(self._store, accepted.id)
        except BlobError:
            return False  # there is none, or nobody can tell

    def _usage_of(self, key: ApiKey) -> Usage:
        usage = self._usages.get(key.id)
        if usage is None:
            usage = self._usages[key.id] = Usage(key, now=time.monotonic())
        return usage

    async def _look(self, usage: Usage) -> None:
        """Free the places of deferred predictions that are done, at most once in LOOK_EVERY seconds."""
        async with usage.looking:
            now = time.monotonic()
            if now - usage.looked_at < LOOK_EVERY:
                return
            usage.looked_at = now
            ids = list(usage.deferred)
            for start in range(0, len(ids), LOOKS_AT_ONCE):
                some = ids[start : start + LOOKS_AT_ONCE]
                for id_ in await self._done_of(usage, some, now):
                    usage.done(id_, time.monotonic())

    async def _done_of(self, usage: Usage, ids: Iterable[str], now: float) -> list[str]:
        async def is_done(id_: str) -> bool:
            try:
                return now - usage.deferred[id_].since > FORGOTTEN_AFTER or await has_result(self._store, id_)
            except BlobError:
                return False  # nobody can tell: it holds its place

        ids = list(ids)
        done = await asyncio.gather(*(is_done(id_) for id_ in ids))
        return [id_ for id_, is_it in zip(ids, done, strict=True) if is_it]


def _rate_limited(key: ApiKey, seconds: int) -> Problem:
    requests = "request" if key.rate == 1 else "requests"
    detail = f"the API key {key.id} may make {key.rate:.3g} {requests} a second; ask again in {seconds} s"
    return Problem(status=429, code="rate-limited", detail=detail, retry_after=seconds)


def _quota_exceeded(key: ApiKey, usage: Usage) -> Problem:
    seconds = usage.next_place_in()
    detail = (
        f"the API key {key.id} has {usage.waiting + len(usage.deferred)} predictions in flight, and may have "
        f"{key.in_flight}; ask again in {seconds} s"
    )
    return Problem(status=429, code="quota-exceeded", detail=detail, retry_after=seconds)
