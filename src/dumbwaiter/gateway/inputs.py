"""From the body of an HTTP request to the body of a message. Pure.

Raw bodies travel as they are, with their content type. ``application/json`` must be ``{"input": ...}``, and what is in
``input`` travels: a JSON value as application/json, a ``data:`` URL (RFC 2397) as the bytes it holds.
"""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

import msgspec

from dumbwaiter.envelope import STRUCTURED_CONTENT_TYPE, is_structured
from dumbwaiter.gateway.problems import Problem, ProblemError

#: What curl --data-binary says when nobody told it: it means "unknown", for nobody sends pictures as a form.
_UNTOLD = "application/x-www-form-urlencoded"


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    input: msgspec.Raw


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_text = msgspec.json.Decoder(str).decode


def read_input(content_type: str | None, body: bytes) -> tuple[str | None, bytes]:
    """Content type (None if unknown) and body of the message. Raises ProblemError: 400 for what is not JSON,
    422 for JSON of the wrong shape.
    """
    if not body:
        raise _problem(400, "empty-body", 'the body is empty; send the input itself, or {"input": ...} as JSON')
    base = (content_type or "").partition(";")[0].strip().lower()
    if base in ("", _UNTOLD):
        return None, body
    if base != "application/json":
        return _as_input(content_type, body)
    value = _input_of(body)
    if value.startswith(b'"data:'):
        return _as_input(*read_data_url(_decode_text(value)))
    return "application/json", value


def _as_input(content_type: str | None, body: bytes) -> tuple[str | None, bytes]:
    # Such a body would be read as a whole message further down: with an id, a reply address and a deadline of its own.
    if is_structured(content_type):
        detail = f"{STRUCTURED_CONTENT_TYPE} is for the queue; send the data itself, with its own content type"
        raise _problem(415, "unsupported-media-type", detail)
    return content_type, body


def _input_of(body: bytes) -> bytes:
    try:
        value = bytes(_decode_request(body).input)
        if not value.isascii():
            value.decode()
    except msgspec.ValidationError as error:
        detail = f'the JSON body must be {{"input": ...}}: {error}'
        raise _problem(422, "bad-input", detail) from None
    except UnicodeDecodeError as error:
        raise _problem(400, "invalid-json", f"the body is not JSON in UTF-8: {error.reason}") from None
    except RecursionError:
        raise _problem(400, "invalid-json", "the JSON body is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise _problem(400, "invalid-json", f"the body is not JSON: {error}") from None
    return value


def read_data_url(url: str) -> tuple[str, bytes]:
    """Content type and bytes of ``data:[<type>][;base64],<data>``; the type defaults to text/plain."""
    head, comma, data = url[len("data:") :].partition(",")
    if not comma:
        raise _problem(422, "bad-input", "input is a data: URL without a comma; use data:image/jpeg;base64,...")
    content_type, base64_marker = head, ""
    if head.lower().endswith(";base64"):
        content_type, base64_marker = head[: -len(";base64")], ";base64"
    payload = unquote_to_bytes(data) if "%" in data or not base64_marker else data.encode()
    if base64_marker:
        try:
            payload = base64.b64decode(payload, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _problem(422, "bad-input", f"input is a data: URL whose base64 is broken: {error}") from None
    if not payload:
        raise _problem(422, "bad-input", "input is a data: URL with nothing in it")
    if content_type.startswith(";"):
        content_type = "text/plain" + content_type
    return content_type or "text/plain;charset=US-ASCII", payload


def _problem(status: int, code: str, detail: str) -> ProblemError:
    return ProblemError(Problem(status=status, code=code, detail=detail))
