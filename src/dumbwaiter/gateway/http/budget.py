"""How many bytes of bodies and what is made of them may be in memory at once: accounting, and nothing else. Pure."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from dumbwaiter.gateway.http.problem_codes import RETRY_SOON
from dumbwaiter.gateway.http.problems import ProblemError, problem

SMALL = 64 * 1024
"""A request that takes no more than so many bytes may take from the reserve too."""
RESERVED = 1 / 8
"""The part of the whole that only small requests get: large ones that come slowly must not turn those away."""


class Budget:
    """*limit* bytes for the bodies of all requests, and for what is made of them. Each request takes its share through
    a hold() of its own.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    def hold(self) -> Hold:
        """The share of one request, empty at first; released with the end of its ``with``."""
        return Hold(self)

    def has_room(self, nbytes: int, *, in_all: int) -> bool:
        """Whether a request may take *nbytes* more, and have *in_all* then."""
        return self.taken + nbytes <= self.limit - self._reserve(in_all)

    def could_have(self, nbytes: int) -> bool:
        """Whether a request may take *nbytes* when there is no other."""
        return nbytes <= self.limit - self._reserve(nbytes)

    def _reserve(self, in_all: int) -> int:
        return 0 if in_all <= SMALL else int(self.limit * RESERVED)


class Hold:
    """What one request has taken of a budget."""

    __slots__ = ("_budget", "nbytes")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.nbytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.release()

    def check(self, nbytes: int) -> None:
        """Raises as take() would, and takes nothing: what was only announced may never come."""
        if not self._budget.has_room(nbytes, in_all=self.nbytes + nbytes):
            raise _overloaded()

    def take(self, nbytes: int, *, or_else: str | None = None) -> None:
        """Take *nbytes* more. Raises ProblemError: 503 when they are not there, and with *or_else*, what the caller is
        to do then, 413 when they would not be there either if this request were alone.
        """
        if or_else is not None and not self._budget.could_have(self.nbytes + nbytes):
            raise _too_much(self.nbytes + nbytes, self._budget.limit, or_else)
        self.check(nbytes)
        self._budget.taken += nbytes
        self.nbytes += nbytes

    def ensure(self, nbytes: int) -> None:
        """Have *nbytes* in all; no more is taken when so much was taken before."""
        if nbytes > self.nbytes:
            self.take(nbytes - self.nbytes)

    def keep(self, nbytes: int) -> None:
        """Give back what was taken beyond *nbytes*."""
        spare = max(self.nbytes - nbytes, 0)
        self._budget.taken -= spare
        self.nbytes -= spare

    def release(self) -> None:
        """Give all of it back. Doing so twice is no error."""
        self._budget.taken -= self.nbytes
        self.nbytes = 0


def _overloaded() -> ProblemError:
    detail = "this gateway has its memory full of requests; ask again, or another gateway"
    return problem(503, "overloaded", detail, retry_after=RETRY_SOON)


def _too_much(nbytes: int, limit: int, or_else: str) -> ProblemError:
    detail = f"this takes {nbytes} bytes of memory, of the {limit} for all requests (gateway.memory_limit); {or_else}"
    return problem(413, "body-too-large", detail, members={"limit": limit})
