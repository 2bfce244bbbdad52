"""How many bytes of request bodies may be in memory at once: accounting, and nothing else. Pure."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from dumbwaiter.gateway.http.problems import RETRY_SOON, ProblemError, problem


class Budget:
    """*limit* bytes for the bodies of all requests. Each request takes its share through a hold() of its own."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    def hold(self) -> Hold:
        """The share of one request, empty at first; released with the end of its ``with``."""
        return Hold(self)


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

    def take(self, nbytes: int) -> None:
        """Take *nbytes* more. Raises ProblemError (503) when they are not there."""
        budget = self._budget
        if budget.taken + nbytes > budget.limit:
            raise _overloaded()
        budget.taken += nbytes
        self.nbytes += nbytes

    def ensure(self, nbytes: int) -> None:
        """Have *nbytes* in all; no more is taken when so much was taken before."""
        if nbytes > self.nbytes:
            self.take(nbytes - self.nbytes)

    def release(self) -> None:
        """Give all of it back. Doing so twice is no error."""
        self._budget.taken -= self.nbytes
        self.nbytes = 0


def _overloaded() -> ProblemError:
    detail = "this gateway has its memory full of requests; ask again, or another gateway"
    return problem(503, "overloaded", detail, retry_after=RETRY_SOON)
