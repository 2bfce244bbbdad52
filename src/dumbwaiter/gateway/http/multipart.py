"""multipart/form-data (RFC 7578), part by part and in bounded memory.

python-multipart finds the boundaries; here its callbacks become parts that are read one after the other, as chunks.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from dumbwaiter.content_types import parse_content_type
from dumbwaiter.gateway.http.problems import ProblemError, problem

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MOST_PARTS = 100
"""No model takes so many arguments."""

_MEDIA_TYPE = "multipart/form-data"
# The library would write a line for each broken form that somebody sends.
_SILENT = logging.getLogger("dumbwaiter.gateway.http.multipart.parser")
_SILENT.setLevel(logging.CRITICAL + 1)


class Part(msgspec.Struct, frozen=True):
    """The head of a part. *content_type* is None when it has none; a part with a *filename* is a file."""

    name: str
    content_type: str | None
    filename: str | None


class _End:
    """A part ends here, or with *last* the form."""

    def __init__(self, *, last: bool) -> None:
        self.last = last


class Form:
    """The parts of a form whose body comes in *chunks*. Ask for next_part(), then read all of its data()."""

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        """Raises ProblemError (400) when *content_type* names no boundary."""
        self._chunks = chunks
        self._found: deque[Part | bytearray | _End] = deque()
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._count = 0
        self._is_over = False
        self._parser = self._make_parser(_boundary(content_type))

    async def next_part(self) -> Part | None:
        """The head of the next part; None after the last one. Raises ProblemError for what is not a form."""
        found = await self._next()
        if isinstance(found, Part):
            return found
        if isinstance(found, _End) and found.last:
            return None
        raise AssertionError("the data of the part before was not read")

    async def data(self) -> AsyncIterator[bytes]:
        """The data of the part at hand. Raises ProblemError when the form ends before it."""
        while True:
            found = await self._next()
            if isinstance(found, _End):
                return
            if isinstance(found, bytearray):
                yield bytes(found)

    async def _next(self) -> Part | bytearray | _End:
        while not self._found:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                raise _malformed("it ends before its last boundary") from None
            # What comes after the last boundary is nobody's.
            if not self._is_over:
                self._feed(chunk)
        found = self._found.popleft()
        if isinstance(found, _End) and found.last:
            async for _ in self._chunks:
                pass
        return found

    def _feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _malformed(str(error)) from None

    def _make_parser(self, boundary: bytes) -> MultipartParser:
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin_part,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_data,
            "on_part_end": lambda: self._found.append(_End(last=False)),
            "on_end": self._end,
        }
        try:
            parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise _malformed(str(error)) from None
        parser.logger = _SILENT
        return parser

    def _begin_part(self) -> None:
        self._count += 1
        if self._count > MOST_PARTS:
            raise problem(413, "too-many-parts", f"the form has more than {MOST_PARTS} parts")
        self._headers = {}

    def _end_header(self) -> None:
        self._headers[bytes(self._name).strip().lower()] = bytes(self._value).strip()
        self._name, self._value = bytearray(), bytearray()

    def _end_headers(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if kind != b"form-data" or b"name" not in options:
            raise _malformed('a part has no Content-Disposition: form-data; name="..."')
        content_type = self._headers.get(b"content-type", b"").decode("latin-1")
        filename = options.get(b"filename")
        self._found.append(
            Part(
                name=_text(options[b"name"]),
                content_type=content_type or None,
                filename=None if filename is None else _text(filename),
            )
        )

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        last = self._found[-1] if self._found else None
        # Data that looks like a boundary comes in crumbs.
        if isinstance(last, bytearray):
            last += data[start:end]
        else:
            self._found.append(bytearray(data[start:end]))

    def _end(self) -> None:
        self._is_over = True
        self._found.append(_End(last=True))


def is_form(content_type: str) -> bool:
    """Whether a body of *content_type* is a form with parts."""
    return parse_content_type(content_type).essence == _MEDIA_TYPE


def _boundary(content_type: str) -> bytes:
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise _malformed("its Content-Type names no boundary")
    return boundary


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _malformed("the name of a part is not UTF-8") from None


def _malformed(reason: str) -> ProblemError:
    return problem(400, "invalid-multipart", f"the body is not multipart/form-data: {reason}")
