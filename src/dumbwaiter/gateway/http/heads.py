"""What the head of a request says, as far as the gateway cares. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from dumbwaiter.envelope import parse_time
from dumbwaiter.errors import BadInputError
from dumbwaiter.gateway.http.accept import quality
from dumbwaiter.gateway.http.preferences import INDIFFERENT, Preferences, preferences_of
from dumbwaiter.gateway.http.problems import one_line, problem
from dumbwaiter.message import GREATEST_PRIORITY, LEAST_PRIORITY

if TYPE_CHECKING:
    from starlette.types import Scope

SOURCE = "/dumbwaiter/gateway"
"""Who sends the messages that requests become."""
LONGEST_KEY = 255

_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,3}")
#: Headers that most requests do without.
_RARE = frozenset(
    {
        b"prefer",
        b"content-encoding",
        b"traceparent",
        b"idempotency-key",
        b"last-event-id",
        b"dumbwaiter-deadline",
        b"dumbwaiter-priority",
    }
)

#: Headers of which one alone can count, and what their values are called in codes.
_SINGLE = {
    b"idempotency-key": "idempotency-key",
    b"dumbwaiter-deadline": "deadline",
    b"dumbwaiter-priority": "priority",
}

T = TypeVar("T")


class Head(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The head of a request. *declared* is its Content-Length, None when the body is sent in chunks.

    *key* is its idempotency key, *deadline* in seconds since the Unix epoch; None: not said.
    """

    content_type: str | None = None
    declared: int | None = None
    accept: str = ""
    preferences: Preferences = INDIFFERENT
    trace_parent: str | None = None
    key: str | None = None
    last_event_id: str | None = None
    deadline: float | None = None
    priority: int | None = None

    @property
    def wants_events(self) -> bool:
        """Whether the caller asks for a stream of events."""
        # Some clients accept either, and read whichever comes; they get what is simpler.
        return "text/event-stream" in self.accept and quality(self.accept, "text/event-stream") > quality(
            self.accept, "application/json"
        )


def read_head(scope: Scope, *, inflates: bool = False) -> Head:
    """The head of the request *scope*.

    Raises ProblemError: 400 for a header of ours that has a wrong form, or is said twice and not the same; 415 for a
    body in any Content-Encoding, unless the caller of this function *inflates* it.
    """
    content_type: str | None = None
    declared: int | None = None
    accept = ""
    rare: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value.decode("latin-1")
        elif name == b"content-length":
            declared = _length(value)
        elif name == b"accept":
            accept = f"{accept},{value.decode('latin-1')}" if accept else value.decode("latin-1")
        elif name in _RARE:
            rare.setdefault(name, []).append(value.decode("latin-1"))
    if not rare:
        return Head(content_type=content_type, declared=declared, accept=accept)
    if not inflates and b"content-encoding" in rare:
        _refuse_encodings(rare[b"content-encoding"])
    _refuse_contradictions(rare)
    found = {name: values[0] for name, values in rare.items()}
    trace_parent = found.get(b"traceparent")
    return Head(
        content_type=content_type,
        declared=declared,
        accept=accept,
        preferences=preferences_of(rare[b"prefer"]) if b"prefer" in rare else INDIFFERENT,
        trace_parent=trace_parent if trace_parent and _TRACE_PARENT.fullmatch(trace_parent) else None,
        key=check_key(found[b"idempotency-key"], "Idempotency-Key") if b"idempotency-key" in found else None,
        last_event_id=found.get(b"last-event-id") or None,
        deadline=_from(found, b"dumbwaiter-deadline", read_deadline),
        priority=_from(found, b"dumbwaiter-priority", read_priority),
    )


def check_key(key: str, name: str) -> str:
    """*key* if it can be an idempotency key; *name* is what the caller knows it as. Raises ProblemError (400)."""
    if 0 < len(key) <= LONGEST_KEY and key.isprintable():
        return key
    detail = f"{name} must have 1 to {LONGEST_KEY} printable characters"
    raise problem(400, "invalid-idempotency-key", detail)


def read_deadline(value: str | float, name: str) -> float:
    """Seconds since the Unix epoch from RFC 3339 text or a number. Raises ProblemError (400), naming *name*."""
    try:
        return parse_time("deadline", value)
    except BadInputError:
        raise problem(400, "invalid-deadline", f"{name} must be an RFC 3339 time or Unix seconds") from None


def read_priority(value: str | int, name: str) -> int:
    """The priority; a larger one is served first. Raises ProblemError (400), naming *name*."""
    if isinstance(value, int) or _INTEGER.fullmatch(value):
        priority = int(value)
        if LEAST_PRIORITY <= priority <= GREATEST_PRIORITY:
            return priority
    detail = f"{name} must be a whole number from {LEAST_PRIORITY} to {GREATEST_PRIORITY}"
    raise problem(400, "invalid-priority", detail)


def one_of(header: T | None, field: T | None, name: str, *, where: str = "by a header and by a field") -> T | None:
    """What the header or the field says; *where* names both. Raises ProblemError (400) when they contradict."""
    if header is not None and field is not None and header != field:
        detail = f"the {name} is said twice, {where}, and not the same; send one of them"
        raise problem(400, f"conflicting-{name}", detail)
    return header if field is None else field


def check_said_once(values: Sequence[T], header: str, name: str) -> None:
    """Raises ProblemError (400 ``conflicting-``*name*) when *values*, all those of *header*, are not the same."""
    if any(value != values[0] for value in values):
        raise problem(400, f"conflicting-{name}", f"{header} is said twice, and not the same; send it once")


def _refuse_contradictions(rare: Mapping[bytes, Sequence[str]]) -> None:
    for header, name in _SINGLE.items():
        if len(values := rare.get(header, ())) > 1:
            check_said_once([value.strip() for value in values], header.decode().title(), name)


def _from(found: dict[bytes, str], header: bytes, read: Callable[[str, str], T]) -> T | None:
    text = found.get(header)
    return None if text is None else read(text.strip(), header.decode().title())


def _refuse_encodings(headers: Sequence[str]) -> None:
    # What a model takes are the bytes of a picture or a text; it would be handed packed ones unawares.
    for coding in (one.strip().lower() for header in headers for one in header.split(",")):
        if coding not in ("", "identity"):
            detail = f"Content-Encoding {one_line(coding[:40])!r} is not taken here; send the body as it is"
            raise problem(415, "unsupported-encoding", detail)


def _length(value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        raise problem(400, "invalid-head", "Content-Length is not a whole number") from None
