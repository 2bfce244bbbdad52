"""``data:`` URLs: how JSON carries files. Pure.

Source: RFC 2397, read as browsers read it (https://fetch.spec.whatwg.org/#data-urls): the scheme and ``;base64`` in any
case, and percent-encoding also within base64.
"""

from __future__ import annotations

import base64
from urllib.parse import unquote_to_bytes

from dumbwaiter.content_types import BYTES, parse_content_type
from dumbwaiter.errors import BadInputError

_SCHEME = "data:"
_DEFAULT = "text/plain"
LONGEST_HEAD = 1024
"""At most so many characters stand before the comma: a type goes on as it is, with every message."""
_PIECE = 64 * 1024
_DEFAULT_CHARSET = ";charset=US-ASCII"


def is_data_url(text: str) -> bool:
    """Whether *text* begins as a ``data:`` URL does."""
    return text[: len(_SCHEME)].lower() == _SCHEME


def holds_base64(text: str) -> bool:
    """Whether *text* begins as a ``data:`` URL in base64 does, which hardly any text does by chance."""
    head, comma, _ = text[: LONGEST_HEAD + 1].partition(",")
    return bool(comma) and is_data_url(text) and _split_head(head)[1]


def read(url: str, *, may_be_empty: bool = False) -> tuple[str | None, bytes]:
    """Content type and bytes of ``data:[<type>][;base64],<data>``.

    Without a type it is text in US-ASCII; in base64, where nobody writes text, the type is None: nobody said it. Raises
    BadInputError, whose text follows on ``got …`` or ``it is …``, for what cannot be read and for what is empty.
    """
    head, comma, data = url.partition(",")
    if not comma or not is_data_url(head):
        raise BadInputError("a data URL without data; write data:image/jpeg;base64,…")
    if len(head) > LONGEST_HEAD:
        raise BadInputError(f"a data URL with more than {LONGEST_HEAD} characters before its comma")
    said, is_base64 = _split_head(head)
    try:
        body = _unescaped(data.encode()) if "%" in data or not is_base64 else data.encode("ascii")
        if is_base64:
            body = base64.b64decode(body, validate=True)
    except ValueError as error:
        raise BadInputError(f"a data URL that is not {'base64' if is_base64 else 'Unicode'}: {error}") from None
    if not body and not may_be_empty:
        raise BadInputError("a data URL with nothing in it")
    if not said and is_base64:
        return None, body
    if not said:
        said = _DEFAULT_CHARSET
    return (_DEFAULT + said if said.startswith(";") else said), body


def write(content_type: str | None, body: bytes) -> str:
    """*body* as a ``data:`` URL in base64. Without a type it is application/octet-stream."""
    said = content_type or BYTES
    if "," in said:  # which would end the type here
        said = parse_content_type(said).essence
    if not said or "," in said:
        said = BYTES
    return f"{_SCHEME}{said};base64,{base64.b64encode(body).decode()}"


def _unescaped(data: bytes) -> bytes:
    """*data* without its percent-encoding, piece by piece: each escape is an object for a while, of twenty times its
    size, and others want to be served meanwhile.
    """
    if len(data) <= _PIECE:
        return unquote_to_bytes(data)
    body, start = bytearray(), 0
    while start < len(data):
        end = start + _PIECE
        if end < len(data):
            cut = data.rfind(b"%", end - 2, end)  # the beginning of an escape that does not end here
            end = end if cut < 0 else cut
        body += unquote_to_bytes(data[start:end])
        start = end
    return bytes(body)


def _split_head(head: str) -> tuple[str, bool]:
    """What stands between the scheme and the comma: the type as it is said, and whether the data is base64."""
    said = head[len(_SCHEME) :].strip()
    before, semicolon, last = said.rpartition(";")
    return (before.rstrip(), True) if semicolon and last.strip().lower() == "base64" else (said, False)
