"""From an answer to an HTTP response. Pure.

JSON and text come back inside a prediction object (the shape of Replicate and Cog); bytes such as pictures come back as
they are. ``Accept`` can ask for text as it is, and for bytes as a ``data:`` URL inside the object.

What a model returns is not trusted: no browser may take it for another type than it says, and what could hold a script
is never shown as a page of this gateway's origin.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.answers import timings_of
from dumbwaiter.content_types import BYTES, JSON, NPY, parse_content_type
from dumbwaiter.gateway.http.accept import quality
from dumbwaiter.gateway.http.sending import json_headers, server_timing
from dumbwaiter.message import PREDICTION_SUCCEEDED
from dumbwaiter.prediction import UNMEASURED, Links, encode_prediction, finished, links_of, unfinished
from dumbwaiter.signing import created_at

if TYPE_CHECKING:
    from dumbwaiter.gateway.http.problems import Headers
    from dumbwaiter.message import Message

#: Types that no browser runs anything of. The others are saved, not shown: what is active is a list that grows.
_HARMLESS = frozenset({BYTES, NPY, JSON, "text/plain"}) | {
    f"image/{name}" for name in ("png", "jpeg", "gif", "webp", "avif", "bmp")
}
_HARMLESS_KINDS = ("audio/", "video/")
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_VISIBLE = re.compile(r"[\x20-\x7e]+")


class Kept(msgspec.Struct, frozen=True, gc=False):
    """What a prediction object says of a kept prediction beyond its answer; *created_at* as in prediction.finished."""

    created_at: float
    links: Links


def kept_of(id_: str, public_url: str | None) -> Kept:
    """What is shown of the kept prediction *id_*: the same in every process."""
    return Kept(created_at(id_) or 0.0, links_of(id_, public_url))


def write_answer(
    answer: Message, *, id_: str, model: str, accept: str, kept: Kept | None = None
) -> tuple[Headers, bytes]:
    """Headers and body of the 200 response for a successful *answer*; *accept* is the request's Accept header."""
    if answer.content_type == JSON or not (is_sent_raw(answer.content_type, accept) or _is_broken_text(answer)):
        return write_object(answer, id_=id_, model=model, kept=kept)
    return raw_headers(answer, id_=id_, nbytes=len(answer.body)), answer.body


def write_object(answer: Message, *, id_: str, model: str, kept: Kept | None = None) -> tuple[Headers, bytes]:
    """Headers and body of the response that holds the prediction object of *answer*, an output or a failure.

    The body of an answer to a kept request may still lie in the store: then the object links to it.
    """
    if kept is None:
        prediction = finished(answer, id_=id_, model=model)
    else:
        linked = answer.data_ref is not None
        prediction = finished(answer, id_=id_, model=model, created_at=kept.created_at, links=kept.links, linked=linked)
    body = encode_prediction(prediction)
    return [*json_headers(body), _NO_SNIFFING, *_said_of(answer, id_)], body


def write_unfinished(
    kept: Kept, *, id_: str, model: str, started: bool, position: int | None = None
) -> tuple[Headers, bytes]:
    """Headers and body of the response that holds a prediction object without an answer; *position* in the queue."""
    body = encode_prediction(
        unfinished(id_, model, created_at=kept.created_at, started=started, links=kept.links, position=position)
    )
    return [*json_headers(body), (b"x-prediction-id", id_.encode())], body


def raw_headers(answer: Message, *, id_: str, nbytes: int) -> Headers:
    """Headers of the response whose body is the output as it is, *nbytes* long."""
    said = _said_of_raw(answer.content_type or BYTES)
    return [*said, *_said_of(answer, id_), (b"content-length", b"%d" % nbytes)]


@functools.lru_cache(maxsize=128)
def is_sent_raw(content_type: str | None, accept: str) -> bool:
    """Whether an output of *content_type* is sent as it is to whoever sends *accept*, rather than in an object."""
    said = parse_content_type(content_type or BYTES)
    if said.is_json:
        return False
    as_it_is, as_object = quality(accept, said.essence), quality(accept, JSON)
    if said.is_text:
        return as_it_is > as_object
    # Most clients say */* and mean "whatever you have".
    return as_object <= as_it_is


def goes_raw(answer: Message, accept: str) -> bool:
    """Whether *answer* is an output that is sent as it is to whoever sends *accept*."""
    return answer.type == PREDICTION_SUCCEEDED and is_sent_raw(answer.content_type, accept)


def _said_of(answer: Message, id_: str) -> Headers:
    named = (b"x-prediction-id", id_.encode("latin-1", "replace"))
    timings = timings_of(answer)
    return [named] if timings == UNMEASURED else [(b"server-timing", server_timing(timings).encode()), named]


@functools.lru_cache(maxsize=128)
def _said_of_raw(content_type: str) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that say how an output of *content_type* is to be taken, sent as it is."""
    if not _VISIBLE.fullmatch(content_type):
        content_type = BYTES
    said = ((b"content-type", content_type.encode("latin-1")), _NO_SNIFFING)
    if _is_harmless(content_type):
        return said
    return (
        *said,
        (b"content-disposition", b"attachment"),
        (b"content-security-policy", b"sandbox; default-src 'none'"),
    )


def _is_harmless(content_type: str) -> bool:
    # A browser reads "image/png,text/html" as two types, and takes the last.
    essence = "" if "," in content_type else parse_content_type(content_type).essence
    return essence in _HARMLESS or essence.startswith(_HARMLESS_KINDS)


def _is_broken_text(answer: Message) -> bool:
    if not parse_content_type(answer.content_type).is_text:
        return False
    try:
        answer.body.decode()
    except UnicodeDecodeError:
        return True
    return False
