"""From the body of an HTTP request to what is to be predicted, and how. Pure.

Raw bodies travel as they are, with their content type. ``application/json`` must be ``{"input": ...}``, and what is in
``input`` travels: a JSON value as application/json, a ``data:`` URL (RFC 2397) as the bytes it holds. Beside it may
stand what the headers could say as well.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from dumbwaiter.blobs.keyring import LONGEST_TENANT, is_tenant_name
from dumbwaiter.config import did_you_mean
from dumbwaiter.envelope import STRUCTURED_CONTENT_TYPE, is_structured
from dumbwaiter.gateway.http.heads import read_deadline, read_priority
from dumbwaiter.gateway.http.problems import ProblemError, one_line, problem

WEBHOOK_EVENTS = ("start", "output", "logs", "completed")
LONGEST_URL = 2048

#: What curl --data-binary says when nobody told it: it means "unknown", for nobody sends pictures as a form.
UNTOLD = "application/x-www-form-urlencoded"


class Controls(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a body says beside its input; None: not said. *deadline* is in seconds since the Unix epoch."""

    webhook: str | None = None
    webhook_events: tuple[str, ...] | None = None
    deadline: float | None = None
    priority: int | None = None
    tenant: str | None = None
    stream: bool = False


UNCONTROLLED = Controls()


class Input(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a body holds: a message's content type (None if unknown) and body, or the *data_ref* of one that was
    streamed to the blob store. *digest* is the SHA-256 of all that was sent, where it is needed.
    """

    content_type: str | None
    body: bytes = b""
    data_ref: str | None = None
    controls: Controls = UNCONTROLLED
    digest: str = ""


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    input: msgspec.Raw
    webhook: str | None = None
    webhook_events_filter: list[str] | None = None
    deadline: str | int | float | None = None
    priority: int | None = None
    tenant: str | None = None
    stream: bool = False


_MEMBERS = _Request.__struct_fields__
_decode_request = msgspec.json.Decoder(_Request).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


def read_input(content_type: str | None, body: bytes) -> Input:
    """What a whole body holds. Raises ProblemError: 400 for what is not JSON, 422 for JSON of the wrong shape."""
    if not body:
        raise empty()
    base = base_type(content_type)
    if base in ("", UNTOLD):
        return Input(content_type=None, body=body)
    if base != "application/json":
        return Input(content_type=check_type(content_type), body=body)
    request = _read_request(body)
    value = bytes(request.input)
    controls = _controls_of(request)
    if value.startswith(b'"data:'):
        content_type, payload = read_data_url(_decode_text(value))
        return Input(content_type=check_type(content_type), body=payload, controls=controls)
    return Input(content_type="application/json", body=value, controls=controls)


def read_controls(fields: Mapping[str, str]) -> Controls:
    """The controls among the text *fields* of a form. Raises ProblemError (400 or 422)."""
    events = fields.get("webhook_events_filter")
    return Controls(
        webhook=_webhook(fields.get("webhook")),
        webhook_events=_events([one.strip() for one in events.split(",")] if events else None),
        deadline=read_deadline(fields["deadline"], "deadline") if "deadline" in fields else None,
        priority=read_priority(fields["priority"], "priority") if "priority" in fields else None,
        tenant=_tenant(fields.get("tenant")),
    )


def base_type(content_type: str | None) -> str:
    """The media type in lower case without its parameters; empty if there is none."""
    return (content_type or "").partition(";")[0].strip().lower()


def check_type(content_type: str | None) -> str | None:
    """*content_type* if a body of it can be an input. Raises ProblemError (415) otherwise."""
    # Such a body would be read as a whole message further down: with an id, a reply address and a deadline of its own.
    if is_structured(content_type):
        detail = f"{STRUCTURED_CONTENT_TYPE} is for the queue; send the data itself, with its own content type"
        raise problem(415, "unsupported-media-type", detail)
    return content_type


def check_json(value: bytes, what: str) -> bytes:
    """*value* if it is JSON in UTF-8. Raises ProblemError (400), naming *what*."""
    try:
        msgspec.json.decode(value)
        value.decode()
    except UnicodeDecodeError as error:
        raise problem(400, "invalid-json", f"{what} is not JSON in UTF-8: {error.reason}") from None
    except RecursionError:
        raise problem(400, "invalid-json", f"{what} is JSON nested too deeply") from None
    except msgspec.DecodeError as error:
        raise problem(400, "invalid-json", f"{what} is not JSON: {error}") from None
    return value


def empty() -> ProblemError:
    """The error for a body of no bytes."""
    return problem(400, "empty-body", 'the body is empty; send the input itself, or {"input": ...} as JSON')


def _read_request(body: bytes) -> _Request:
    try:
        request = _decode_request(body)
        value = bytes(request.input)
        if not value.isascii():
            value.decode()
    except msgspec.ValidationError as error:
        detail = f'the JSON body must be {{"input": ...}}: {_wrong_with(body, error)}'
        raise problem(422, "bad-input", detail) from None
    except UnicodeDecodeError as error:
        raise problem(400, "invalid-json", f"the body is not JSON in UTF-8: {error.reason}") from None
    except RecursionError:
        raise problem(400, "invalid-json", "the JSON body is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise problem(400, "invalid-json", f"the body is not JSON: {error}") from None
    return request


def _wrong_with(body: bytes, error: msgspec.ValidationError) -> str:
    try:
        names = list(_decode_members(body))
    except msgspec.DecodeError:
        return str(error)
    unknown = [name for name in names if name not in _MEMBERS]
    if not unknown:
        return str(error)
    return f"it has no member {one_line(unknown[0][:60])!r}{did_you_mean(unknown[0][:60], _MEMBERS)}"


def _controls_of(request: _Request) -> Controls:
    if request.webhook is None and request.webhook_events_filter is None and _says_no_more(request):
        return UNCONTROLLED
    deadline, priority = request.deadline, request.priority
    return Controls(
        webhook=_webhook(request.webhook),
        webhook_events=_events(request.webhook_events_filter),
        deadline=None if deadline is None else read_deadline(deadline, "deadline"),
        priority=None if priority is None else read_priority(priority, "priority"),
        tenant=_tenant(request.tenant),
        stream=request.stream,
    )


def _tenant(name: str | None) -> str | None:
    if name is not None and not is_tenant_name(name):
        raise problem(400, "invalid-tenant", f"tenant must have 1 to {LONGEST_TENANT} printable characters")
    return name


def _says_no_more(request: _Request) -> bool:
    return request.deadline is None and request.priority is None and request.tenant is None and not request.stream


def _webhook(url: str | None) -> str | None:
    if url is not None and len(url) > LONGEST_URL:
        raise problem(422, "bad-input", f"webhook is longer than {LONGEST_URL} characters")
    return url


def _events(names: Sequence[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    for name in names:
        if name not in WEBHOOK_EVENTS:
            hint = did_you_mean(name[:60], WEBHOOK_EVENTS) or f"; known: {', '.join(WEBHOOK_EVENTS)}"
            raise problem(422, "bad-input", f"webhook_events_filter has an unknown event {name[:60]!r}{hint}")
    return tuple(dict.fromkeys(names))


def data_url(content_type: str | None, body: bytes) -> str:
    """*body* as a ``data:`` URL."""
    return f"data:{content_type or 'application/octet-stream'};base64,{base64.b64encode(body).decode()}"


def object_of(members: Mapping[str, Any]) -> bytes:
    """*members* as a JSON object; values may be msgspec.Raw."""
    return msgspec.json.encode(members)


def read_data_url(url: str) -> tuple[str, bytes]:
    """Content type and bytes of ``data:[<type>][;base64],<data>``; the type defaults to text/plain."""
    head, comma, data = url[len("data:") :].partition(",")
    if not comma:
        raise problem(422, "bad-input", "input is a data: URL without a comma; use data:image/jpeg;base64,...")
    content_type, base64_marker = head, ""
    if head.lower().endswith(";base64"):
        content_type, base64_marker = head[: -len(";base64")], ";base64"
    payload = unquote_to_bytes(data) if "%" in data or not base64_marker else data.encode()
    if base64_marker:
        try:
            payload = base64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError) as error:
            raise problem(422, "bad-input", f"input is a data: URL whose base64 is broken: {error}") from None
    if not payload:
        raise problem(422, "bad-input", "input is a data: URL with nothing in it")
    if content_type.startswith(";"):
        content_type = "text/plain" + content_type
    return content_type or "text/plain;charset=US-ASCII", payload
