"""From the body of an HTTP request to what is to be predicted, and how. Pure.

Raw bodies travel as they are, with their content type. ``application/json`` must be ``{"input": ...}``, and what is in
``input`` travels: a JSON value as application/json, a ``data:`` URL (RFC 2397) as the bytes it holds. Beside it may
stand what the headers could say as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dumbwaiter import data_urls
from dumbwaiter.content_types import JSON, parse_content_type
from dumbwaiter.envelope import STRUCTURED_CONTENT_TYPE, is_structured
from dumbwaiter.errors import BadInputError
from dumbwaiter.gateway.http.heads import read_deadline, read_priority
from dumbwaiter.gateway.http.problems import ProblemError, one_line, problem
from dumbwaiter.message import LONGEST_TENANT, is_tenant_name
from dumbwaiter.notification import EVENTS
from dumbwaiter.spelling import did_you_mean

LONGEST_URL = 2048


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
    streamed to the blob store, or the id of an *upload* that holds it and is yet to be claimed. *digest* is the SHA-256
    of all that was sent, where it is needed.
    """

    content_type: str | None
    body: bytes = b""
    data_ref: str | None = None
    controls: Controls = UNCONTROLLED
    digest: str = ""
    upload: str | None = None


_NOT_SAID = msgspec.Raw(b"null")
_EXPLAINED_NBYTES = 64 * 1024
"""In a larger body nobody looks for the member that is wrong."""
_LONGEST_FILTER = 4096


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    input: msgspec.Raw
    webhook: str | None = None
    webhook_events_filter: msgspec.Raw = _NOT_SAID
    deadline: str | int | float | None = None
    priority: int | None = None
    tenant: str | None = None
    stream: bool = False


class _Upload(msgspec.Struct, forbid_unknown_fields=True):
    id: str = msgspec.field(name="$upload")
    content_type: str | None = None


_LONGEST_REFERENCE = 1024
_MEMBERS = _Request.__struct_fields__
_INPUT = _MEMBERS[0]
#: What each member that is looked into must be.
_KINDS = {
    "webhook": "text",
    "deadline": "text or a number",
    "priority": "a whole number",
    "tenant": "text",
    "stream": "true or false",
}
#: How msgspec ends its complaint of one of them.
_WRONG_MEMBER = re.compile(rf"`\$\.({'|'.join(_KINDS)})`$")
_decode_request = msgspec.json.Decoder(_Request).decode
_decode_upload = msgspec.json.Decoder(_Upload).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_filter = msgspec.json.Decoder(list[str] | None).decode
_decode_text = msgspec.json.Decoder(str).decode
#: A JSON string that is_data_url() is true of: each letter in either case, or any of it as an escape.
_DATA_URL_BEGINS = re.compile(
    rb'"(?:[Dd]|\\u00[46]4)(?:[Aa]|\\u00[46]1)(?:[Tt]|\\u00[57]4)(?:[Aa]|\\u00[46]1)(?::|\\u003[Aa])'
)


def read_input(content_type: str | None, body: bytes) -> Input:
    """What a whole body holds. Raises ProblemError: 400 for what is not JSON, 422 for JSON of the wrong shape."""
    if not body:
        raise empty()
    if not is_json(content_type):
        return Input(content_type=check_type(content_type), body=body)
    request = _read_request(body)
    value = bytes(request.input)
    controls = _controls_of(request)
    if (url := _data_url_in(value)) is not None:
        content_type, payload = _read_data_url(url)
        return Input(content_type=check_type(content_type), body=payload, controls=controls)
    if (upload := _upload_in(value)) is not None:
        return Input(content_type=check_type(upload.content_type), upload=upload.id, controls=controls)
    return Input(content_type=JSON, body=value, controls=controls)


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


def is_json(content_type: str | None) -> bool:
    """Whether a body of *content_type* is looked into; the dialects of JSON travel as they are."""
    return parse_content_type(content_type).essence == JSON


def check_type(content_type: str | None) -> str | None:
    """The type that an input of *content_type* travels with, None where nobody chose one: what curl says by itself is
    not what the bytes are. Raises ProblemError (415) for what can be no input.
    """
    if parse_content_type(content_type).unsaid:
        return None
    # Such a body would be read as a whole message further down: with an id, a reply address and a deadline of its own.
    if is_structured(content_type):
        detail = f"{STRUCTURED_CONTENT_TYPE} is for the queue; send the data itself, with its own content type"
        raise problem(415, "unsupported-media-type", detail)
    return content_type


def check_json(value: bytes, what: str) -> bytes:
    """*value* if it is JSON in UTF-8. Raises ProblemError (400), naming *what*."""
    try:
        msgspec.json.decode(value, type=msgspec.Raw)  # which builds no objects
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
    """What is wrong with a *body* that is JSON, in the words of JSON."""
    if (member := _WRONG_MEMBER.search(str(error))) is not None:
        return f"{member[1]} must be {_KINDS[member[1]]}"
    if len(body) > _EXPLAINED_NBYTES:
        return str(error)
    try:
        names = list(_decode_members(body))
    except msgspec.ValidationError:
        return "it is no object"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # in what comes after the first fault
        return str(error)
    unknown = [name for name in names if name not in _MEMBERS]
    if not unknown:
        return f"it lacks the member {_INPUT!r}"
    hint = did_you_mean(unknown[0][:60], _MEMBERS)
    if not hint and _INPUT not in names:
        hint = f'; send {{"{_INPUT}": {{"{one_line(unknown[0][:60])}": ...}}}}'
    return f"it has no member {one_line(unknown[0][:60])!r}{hint or f'; known: {_known_members()}'}"


def _known_members() -> str:
    return ", ".join(_MEMBERS)


def _controls_of(request: _Request) -> Controls:
    if request.webhook is None and request.webhook_events_filter is _NOT_SAID and _says_no_more(request):
        return UNCONTROLLED
    deadline, priority = request.deadline, request.priority
    return Controls(
        webhook=_webhook(request.webhook),
        webhook_events=_events(_filter_in(request.webhook_events_filter)),
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


def _filter_in(value: msgspec.Raw) -> list[str] | None:
    try:
        if len(bytes(value)) > _LONGEST_FILTER:
            raise problem(422, "bad-input", f"webhook_events_filter is longer than {_LONGEST_FILTER} bytes")
        names: list[str] | None = _decode_filter(value)
    except msgspec.ValidationError:
        detail = f"webhook_events_filter must be a list of events: {', '.join(EVENTS)}"
        raise problem(422, "bad-input", detail) from None
    except UnicodeDecodeError as error:
        raise problem(400, "invalid-json", f"the body is not JSON in UTF-8: {error.reason}") from None
    return names


def _events(names: Sequence[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    for name in names:
        if name not in EVENTS:
            hint = did_you_mean(name[:60], EVENTS) or f"; known: {', '.join(EVENTS)}"
            raise problem(422, "bad-input", f"webhook_events_filter has an unknown event {name[:60]!r}{hint}")
    return tuple(dict.fromkeys(names))


def object_of(members: Mapping[str, Any]) -> bytes:
    """*members* as a JSON object; values may be msgspec.Raw."""
    return msgspec.json.encode(members)


def _data_url_in(value: bytes) -> str | None:
    """The ``data:`` URL that the JSON *value* is, if it is one."""
    if not _DATA_URL_BEGINS.match(value):
        return None
    return _decode_text(value)


def _upload_in(value: bytes) -> _Upload | None:
    """The reference to an upload that the JSON *value* is; an object that says more is an input like any other."""
    if not value.startswith(b"{") or len(value) > _LONGEST_REFERENCE or b'"$upload"' not in value:
        return None
    try:
        return _decode_upload(value)
    except msgspec.ValidationError:
        return None


def _read_data_url(url: str) -> tuple[str | None, bytes]:
    try:
        return data_urls.read(url)
    except BadInputError as error:
        raise problem(422, "bad-input", f"input is {error}") from None
