"""From the parts of a form to what is to be predicted.

One field named ``input`` is the input, with its type. Several fields, or one of another name, are the arguments of a
model that takes several: a JSON object in which files stand as ``data:`` URLs, fields of application/json as what they
say, and all others as text. The fields named in CONTROLS are no arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.gateway.http.bodies import too_large
from dumbwaiter.gateway.http.problems import one_line, problem
from dumbwaiter.gateway.predictions.inputs import (
    Input,
    base_type,
    check_json,
    check_type,
    data_url,
    empty,
    object_of,
    read_controls,
    read_input,
)

if TYPE_CHECKING:
    from dumbwaiter.gateway.http.budget import Hold
    from dumbwaiter.gateway.http.multipart import Form, Part

CONTROLS = frozenset({"webhook", "webhook_events_filter", "deadline", "priority", "tenant"})
INPUT = "input"

Stream = Callable[[AsyncIterator[bytes]], Awaitable[str]]


class FormReader:
    """Reads one form. Its fields take at most *limit* bytes of memory, through *hold*; an upload takes *upload*."""

    def __init__(self, hold: Hold, *, limit: int, upload: int) -> None:
        self.data_ref: str | None = None
        """Where a file lies that was streamed; whoever called drops it when read() raises."""
        self._hold = hold
        self._limit = limit
        self._upload = upload
        self._nbytes = 0
        self._digest = hashlib.sha256()
        self._fields: dict[str, tuple[Part, bytes]] = {}

    async def read(self, form: Form, *, threshold: int, stream: Stream) -> Input:
        """The input that *form* holds. A file named ``input`` of more than *threshold* bytes goes through *stream*,
        which returns its data_ref. Raises ProblemError, and what *stream* raises.
        """
        while (part := await form.next_part()) is not None:
            if part.name in self._fields:
                name = one_line(part.name[:60])
                raise problem(422, "bad-input", f"the form has two fields named {name!r}; a list goes as JSON")
            data = form.data()
            # JSON is looked into, and so is never streamed.
            streams = part.name == INPUT and base_type(part.content_type) != "application/json"
            begun = await self._begin(data, threshold if streams else self._limit)
            if streams and len(begun) > threshold:
                check_type(part.content_type)
                self.data_ref = await stream(self._rest(begun, data))
                begun = b""
            self._fields[part.name] = (part, begun)
            self._note(part, begun)
        return self._input()

    async def _begin(self, data: AsyncIterator[bytes], most: int) -> bytes:
        """The data of a part, or what comes first of it, more than *most* bytes."""
        begun = bytearray()
        async for chunk in data:
            begun += chunk
            self._nbytes += len(chunk)
            if self._nbytes > self._limit:
                raise too_large("the form without its file named 'input'", self._limit)
            self._hold.ensure(self._nbytes)
            if len(begun) > most:
                break
        return bytes(begun)

    async def _rest(self, begun: bytes, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._hold.take(self._upload)
        digest = hashlib.sha256(begun)
        yield begun
        async for chunk in data:
            digest.update(chunk)
            yield chunk
        self._digest.update(digest.digest())

    def _note(self, part: Part, data: bytes) -> None:
        # Not the body as it is: its boundary is another one each time that the same form is sent.
        head = msgspec.json.encode([part.name, part.content_type, part.filename is not None])
        self._digest.update(hashlib.sha256(head).digest() + hashlib.sha256(data).digest())

    def _input(self) -> Input:
        texts = {name: _text(name, data) for name, (_, data) in self._fields.items() if name in CONTROLS}
        controls = read_controls(texts)
        arguments = {name: field for name, field in self._fields.items() if name not in CONTROLS}
        if not arguments:
            raise empty()
        digest = self._digest.hexdigest()
        if set(arguments) == {INPUT}:
            part, body = arguments[INPUT]
            if self.data_ref is not None:
                content_type = part.content_type
                return Input(content_type=content_type, data_ref=self.data_ref, controls=controls, digest=digest)
            return _only(part, body, Input(content_type=None, controls=controls, digest=digest))
        if self.data_ref is not None:
            detail = "a large file named 'input' goes alone; beside other arguments, name it after its parameter"
            raise problem(413, "body-too-large", detail)
        value = object_of({name: _argument(name, part, data) for name, (part, data) in arguments.items()})
        return Input(content_type="application/json", body=value, controls=controls, digest=digest)


def _only(part: Part, body: bytes, rest: Input) -> Input:
    """The field ``input``, alone: the body of a request in its own right, but for JSON, which is the value itself."""
    if not body:
        raise empty()
    if base_type(part.content_type) == "application/json":
        value = check_json(body, "the field 'input'")
        return msgspec.structs.replace(rest, content_type="application/json", body=value)
    given = read_input(part.content_type, body)
    return msgspec.structs.replace(rest, content_type=given.content_type, body=given.body)


def _argument(name: str, part: Part, data: bytes) -> msgspec.Raw | str:
    if base_type(part.content_type) == "application/json":
        return msgspec.Raw(check_json(data, f"the field {one_line(name[:60])!r}"))
    if part.filename is not None:
        return data_url(part.content_type, data)
    return _text(name, data)


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        detail = f"the field {one_line(name[:60])!r} is not text in UTF-8; send it as a file"
        raise problem(422, "bad-input", detail) from None
