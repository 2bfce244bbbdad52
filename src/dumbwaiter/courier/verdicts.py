"""What one try came to, and what then becomes of the message."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter import retry_after
from dumbwaiter.courier.posts import SupersededError
from dumbwaiter.errors import (
    BadInputError,
    BlobDamagedError,
    BlobError,
    BlobNotFoundError,
    ForbiddenUrlError,
    OutboundError,
)
from dumbwaiter.policies.delivering import Again, Done, Stop, judge
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from dumbwaiter.outbound import Response

BAD_NOTIFICATION, FORBIDDEN = "bad-notification", "forbidden-url"
RESULT_GONE, RESULT_DAMAGED = "result-gone", "result-damaged"
SUPERSEDED = "superseded"
"""Nobody need look at such a one: the new answer has a notification of its own."""


class Verdict(msgspec.Struct, frozen=True):
    """*end* and, for people, *why*."""

    end: Done | Again | Stop
    why: str

    def at(self, place: str) -> Verdict:
        """The same, with the receiver's *place* before the reason."""
        return Verdict(self.end, f"{place}: {self.why}")


def of_response(response: Response, tries: int, *, most: int) -> Verdict:
    """The receiver answered the *tries*-th try."""
    wait = retry_after.seconds_of(response.headers.get("retry-after"), now=time.time())
    end = judge(response.status, tries, luck=_luck(), retry_after=wait, most=most)
    return Verdict(end, f"it answered {response.status}")


def of_error(error: Exception, tries: int, *, most: int) -> Verdict:
    """The *tries*-th try ended in *error*. Errors that are not expected are raised."""
    match error:
        case ForbiddenUrlError():
            return Verdict(Stop(FORBIDDEN), str(ForbiddenUrlError(shown(error.url), error.reason)))
        case BadInputError():
            return Verdict(Stop(BAD_NOTIFICATION), str(error))
        case SupersededError():
            return Verdict(Stop(SUPERSEDED), str(error))
        case BlobDamagedError():
            return Verdict(Stop(RESULT_DAMAGED), str(error))
        case BlobNotFoundError():
            # A person may have redriven the request: then there is another result soon, and this is superseded.
            end = judge(None, tries, luck=_luck(), most=most)
            gone = f"the result that it tells of is there no more: {error}"
            return Verdict(Stop(RESULT_GONE) if isinstance(end, Stop) else end, gone)
        case OutboundError() | BlobError():
            # A store that is down counts as well: one that has lost a body would be asked for it for ever otherwise.
            return Verdict(judge(None, tries, luck=_luck(), most=most), str(error))
    raise error


def _luck() -> float:
    return random.random()  # noqa: S311 - nothing secret about it
