"""Errors as who asks sees them, by gRPC and by HTTP. Pure. What cannot be told is refused, and is never 0 workers."""

from __future__ import annotations

from typing import Literal, NamedTuple

from dumbwaiter.errors import BlobError, BrokerError, ConfigError, DumbwaiterError, SignalUnknownError
from dumbwaiter.scaler.asking import NoSuchModelError

LONGEST_DETAIL = 1000
"""Characters. It travels in a trailer, and clients take few KiB of those."""

StatusName = Literal["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNAVAILABLE", "INTERNAL"]


class TooSlowError(DumbwaiterError):
    """Broker and blob store did not tell within *seconds*."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"the broker and the blob store did not tell within {seconds:g} s")


class StoppingError(DumbwaiterError):
    """The scaler was told to stop before it could tell."""

    def __init__(self) -> None:
        super().__init__("the scaler is stopping; ask again")


class TooManyError(DumbwaiterError):
    """*most* others are asking."""

    def __init__(self, most: int) -> None:
        self.most = most
        super().__init__(f"the scaler answers {most} requests at once; ask again")


class Refusal(NamedTuple):
    """One error: *status* is HTTP's and *grpc* the name of gRPC's; *code* is stable and for programs."""

    grpc: StatusName
    status: int
    code: str
    detail: str


_KINDS: tuple[tuple[type[DumbwaiterError], StatusName, int, str], ...] = (
    (NoSuchModelError, "NOT_FOUND", 404, "unknown-model"),
    (ConfigError, "INVALID_ARGUMENT", 400, "invalid-parameter"),
    (SignalUnknownError, "FAILED_PRECONDITION", 503, "signal-unknown"),
    (BrokerError, "UNAVAILABLE", 503, "broker-unavailable"),
    (BlobError, "UNAVAILABLE", 503, "blob-store-unavailable"),
    (TooSlowError, "UNAVAILABLE", 503, "too-slow"),
    (StoppingError, "UNAVAILABLE", 503, "shutting-down"),
    (TooManyError, "UNAVAILABLE", 503, "overloaded"),
)


def refusal_of(error: Exception) -> Refusal:
    """How *error* is told. One that is no DumbwaiterError of a known kind is our own fault, and says no more."""
    for kind, grpc, status, code in _KINDS:
        if isinstance(error, kind):
            return Refusal(grpc, status, code, shortened(str(error)))
    return Refusal("INTERNAL", 500, "internal-error", f"unexpected {type(error).__name__}; the scaler's log says more")


def shortened(detail: str) -> str:
    """*detail*, which may quote what was asked, in at most LONGEST_DETAIL characters."""
    return detail if len(detail) <= LONGEST_DETAIL else f"{detail[: LONGEST_DETAIL - 1]}…"
