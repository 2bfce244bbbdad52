"""From the parts of a form to what is to be predicted.

One field named ``input`` is the input, with its type. Several fields, or one of another name, are the arguments of a
model that takes several: a JSON object in which files stand as ``data:`` URLs, fields of application/json as what they
say, and all others as text, or as JSON where the model says that its parameter is no text: a number, true, a list. The
fields named in CONTROLS are no arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from dumbwaiter import data_urls
from dumbwaiter.content_types import JSON
from dumbwaiter.gateway.http.bodies import too_large
from dumbwaiter.gateway.http.problems import one_line, problem
from dumbwaiter.gateway.predictions.inputs import (
    Input,
    check_json,
    check_type,
    empty,
    is_json,
    object_of,
    read_controls,
    read_input,
)
from dumbwaiter.gateway.predictions.parameters import Parameters
from dumbwaiter.spelling import did_you_mean

if TYPE_CHECKING:
    from dumbwaiter.gateway.http.budget import Hold
    from dumbwaiter.gateway.http.multipart import Form, Part

CONTROLS = frozenset({"webhook", "webhook_events_filter", "deadline", "priority", "tenant"})
INPUT = "input"

Stream = Callable[[AsyncIterator[bytes]], Awaitable[str]]
Describe = Callable[[], Awaitable[Mapping[str, Any]]]


async def unknown() -> Mapping[str, Any]:
    """The signature of a model that has never said what it takes."""
    return {}


class FormReader:
    """Reads one form. Its fields take at most *limit* bytes of memory, through *hold*; an upload takes *upload*.

    *describe* returns the model's signature; it is called for arguments only.
    """

    def __init__(self, hold: Hold, *, limit: int, upload: int, describe: Describe = unknown) -> None:
        self.data_ref: str | None = None
        """Where a file lies that was streamed; whoever called drops it when read() raises."""
        self._hold = hold
        self._limit = limit
        self._upload = upload
        self._describe = describe
        self._nbytes = 0
        self._digest = hashlib.sha256()
        self._fields: dict[str, tuple[Part, bytes]] = {}

    async def read(self, form: Form, *, threshold: int, stream: Stream) -> Input:
        """The input that *form* holds. A file named ``input`` of more than *threshold* bytes goes through *stream*,
        which returns its data_ref. Raises ProblemError, and what *stream* and *describe* raise.
        """
        while (part := await form.next_part()) is not None:
            if part.name in self._fields:
                name = one_line(part.name[:60])
                raise problem(422, "bad-input", f"the form has two fields named {name!r}; a list goes as JSON")
            data = form.data()
            # JSON is looked into, and so is never streamed.
            streams = part.name == INPUT and not is_json(part.content_type)
            begun = await self._begin(data, threshold if streams else self._limit)
            if streams and len(begun) > threshold:
                check_type(part.content_type)
                self.data_ref = await stream(self._rest(begun, data))
                begun = b""
            self._fields[part.name] = (part, begun)
            self._note(part, begun)
        return await self._input()

    async def _begin(self, data: AsyncIterator[bytes], most: int) -> bytes:
        """The data of a part, or what comes first of it, more than *most* bytes."""
        begun = bytearray()
        async for chunk in data:
            begun += chunk
            self._nbytes += len(chunk)
            if self._nbytes > self._limit:
                raise too_large("the form without its file named 'input'", self._limit, None)
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

    async def _input(self) -> Input:
        texts = {name: _text(name, data) for name, (_, data) in self._fields.items() if name in CONTROLS}
        arguments = {name: field for name, field in self._fields.items() if name not in CONTROLS}
        if texts and set(arguments) != {INPUT}:
            _refuse_ambiguous(texts, Parameters(await self._describe()))
        controls = read_controls(texts)
        if not arguments:
            raise empty()
        digest = self._digest.hexdigest()
        if set(arguments) == {INPUT}:
            part, body = arguments[INPUT]
            if self.data_ref is not None:
                content_type = check_type(part.content_type)
                return Input(content_type=content_type, data_ref=self.data_ref, controls=controls, digest=digest)
            return _only(part, body, Input(content_type=None, controls=controls, digest=digest))
        if self.data_ref is not None:
            detail = "a large file named 'input' goes alone; beside other arguments, name it after its parameter"
            raise problem(413, "body-too-large", detail)
        parameters = Parameters(await self._describe())
        if parameters.only is not None:
            name, (part, body) = _the_one(arguments, parameters.only)
            if part.filename is not None or is_json(part.content_type):
                return _only(part, body, Input(content_type=None, controls=controls, digest=digest))
            value = msgspec.json.encode(_argument(name, part, body, parameters))
        else:
            value = object_of({name: _argument(name, *field, parameters) for name, field in arguments.items()})
        return Input(content_type=JSON, body=value, controls=controls, digest=digest)


def _refuse_ambiguous(controls: Iterable[str], parameters: Parameters) -> None:
    """Raise ProblemError (422) for a field that the caller may have meant for the model, and the gateway for itself."""
    for name in controls:
        if name in parameters:
            detail = (
                f"in a form the field {name!r} is about the request, and the model has a parameter of that name; send"
                ' the input as JSON: {"input": …}'
            )
            raise problem(422, "bad-input", detail)


def _the_one(arguments: Mapping[str, tuple[Part, bytes]], name: str) -> tuple[str, tuple[Part, bytes]]:
    """The field that is the input of a model whose only parameter is *name*, by its name. Raises ProblemError (422)."""
    wrong = next((field for field in arguments if field not in (INPUT, name)), None)
    if wrong is None and len(arguments) == 1:
        return next(iter(arguments.items()))
    field = (wrong or name)[:60]
    names = (INPUT, name) if name != INPUT else (INPUT,)
    hint = did_you_mean(field, (*names, *sorted(CONTROLS))) if wrong else ""
    takes = " or ".join(map(repr, names))
    detail = f"the form has the field {one_line(field)!r}, and the model takes one field, named {takes}{hint}"
    raise problem(422, "bad-input", detail)


def _only(part: Part, body: bytes, rest: Input) -> Input:
    """The field ``input``, alone: the body of a request in its own right, but for JSON, which is the value itself."""
    if not body:
        raise empty()
    if is_json(part.content_type):
        value = check_json(body, "the field 'input'")
        return msgspec.structs.replace(rest, content_type=JSON, body=value)
    given = read_input(part.content_type, body)
    return msgspec.structs.replace(rest, content_type=given.content_type, body=given.body)


def _argument(name: str, part: Part, data: bytes, parameters: Parameters) -> msgspec.Raw | str:
    if is_json(part.content_type):
        return msgspec.Raw(check_json(data, f"the field {one_line(name[:60])!r}"))
    if part.filename is not None:
        return data_urls.write(part.content_type, data)
    return parameters.value_of(name, _text(name, data))


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        detail = f"the field {one_line(name[:60])!r} is not text in UTF-8; send it as a file"
        raise problem(422, "bad-input", detail) from None
