"""From input tensors to the bodies of messages, by what the model says that it takes. Pure.

The dimensions by which a tensor is split into requests are the *lead*: they come back in front of the output's own.
A model's signature is what models.contract.LoadedModel.describe() returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from dumbwaiter import content_types, data_urls
from dumbwaiter.content_types import JSON, NPY, PNG, TEXT
from dumbwaiter.gateway.http.problems import one_line
from dumbwaiter.gateway.oip.datatypes import BYTES, DATATYPES
from dumbwaiter.gateway.oip.npy import write_npy
from dumbwaiter.gateway.oip.numbers import NotJsonError, gather, most_json_nbytes, widen, write_nested
from dumbwaiter.gateway.oip.pictures import pictures_of, shape_of_picture
from dumbwaiter.gateway.oip.problems import refused
from dumbwaiter.gateway.oip.tensors import Tensor

MOST_REQUESTS = 1024
"""One call becomes at most so many requests to the model."""
INPUT = "input"
"""What an input may be called whatever the model's own name for it is."""

_HEADER_NBYTES = 256
"""What a body takes beside the elements in it: the head of its file, and a Python object."""
_SCALARS = frozenset({"number", "integer", "boolean"})

Body = tuple[str | None, bytes]


class Split(msgspec.Struct, frozen=True):
    """The requests of one call: *bodies*, content type (None: unsaid) and bytes, one for each place of *lead*."""

    lead: tuple[int, ...]
    bodies: list[Body]


def split(signature: Mapping[str, Any], tensors: Sequence[Tensor]) -> Split:
    """The requests that *tensors* are to a model of *signature*. Raises ProblemError (400), saying what it takes."""
    described = signature.get("input", {})
    if described.get("kind") == "arguments":
        return Split((), [(JSON, _arguments(described, tensors))])
    tensor = _only(described, tensors)
    kind = described.get("kind", "any")
    batched = bool(signature.get("batched"))
    if tensor.datatype == BYTES:
        lead, bodies = tensor.shape, _SPLIT_BYTES.get(kind, _no_bytes)(tensor)
    elif kind == "image":
        lead, bodies = _pictures(tensor)
    elif kind in {"array", "tensor", "any"}:
        lead, bodies = _arrays(tensor, batched=batched)
    elif kind == "json":
        lead, bodies = _json_numbers(tensor, described.get("schema", {}), batched=batched)
    else:
        raise refused(f"input {tensor.name!r} is {kind}: send it as BYTES, not as {tensor.datatype}")
    if not bodies:
        raise refused(f"input {tensor.name!r} has no elements: its shape is {list(tensor.shape)}")
    return Split(lead, bodies)


def most_split_nbytes(signature: Mapping[str, Any], tensors: Sequence[Tensor]) -> int:
    """A bound for what split() takes beside *tensors*, what it does in between included."""
    described = signature.get("input", {})
    if described.get("kind") == "arguments":
        kinds = kinds_of(described)
        # Written as a file first, then as a data URL, then as JSON, and then among the others.
        return sum(4 * _most_bodies_nbytes(kinds.get(tensor.name, "any"), tensor) for tensor in tensors)
    kind = described.get("kind", "any")
    return sum(_most_bodies_nbytes(kind, tensor) for tensor in tensors if tensor.datatype != BYTES)


def _most_bodies_nbytes(kind: str, tensor: Tensor) -> int:
    bodies = min(tensor.shape[0], MOST_REQUESTS) if tensor.shape else 1
    if kind == "json" and tensor.datatype != BYTES:
        nbytes = most_json_nbytes(DATATYPES[tensor.datatype], tensor.shape)
    elif kind == "image":
        nbytes = 6 * tensor.nbytes  # rows, file and its parts; each row has a byte more, which may double it
    else:
        nbytes = (3 if tensor.datatype == "BF16" else 1) * tensor.nbytes
    return nbytes + (bodies + 1) * _HEADER_NBYTES


def kinds_of(described: Mapping[str, Any]) -> dict[str, str]:
    """The kind of each of several parameters."""
    properties: Mapping[str, Any] = described.get("schema", {}).get("properties", {})
    said: Mapping[str, str] = described.get("kinds", {})
    return {name: said.get(name) or _guess_kind(schema) for name, schema in properties.items()}


def is_scalar(schema: Any) -> bool:
    """Whether a JSON Schema is that of one number or boolean."""
    return isinstance(schema, Mapping) and schema.get("type") in _SCALARS


def _guess_kind(schema: Any) -> str:
    if not schema or not isinstance(schema, Mapping):
        return "any"
    if schema.get("type") == "string":
        return "image" if "contentMediaType" in schema else "bytes" if schema.get("format") == "uri" else "text"
    return "array" if schema.get("type") == ["array", "number", "boolean"] else "json"


def _only(described: Mapping[str, Any], tensors: Sequence[Tensor]) -> Tensor:
    name = described.get("name", INPUT)
    if len(tensors) != 1 or tensors[0].name not in (name, INPUT):
        names = ", ".join(repr(one_line(tensor.name)[:80]) for tensor in tensors[:5])
        raise refused(f"the model takes one input, {name!r}; the request has {names}")
    return tensors[0]


def _check_count(tensor: Tensor, count: int) -> None:
    if count > MOST_REQUESTS:
        raise refused(
            f"input {tensor.name!r} is {count} requests to the model; at most {MOST_REQUESTS} may come in one call",
            code="call-too-large",
        )


# BYTES: every element is a request.


def _encoded(content_type: str | None) -> Callable[[Tensor], list[Body]]:
    def bodies(tensor: Tensor) -> list[Body]:
        _check_count(tensor, tensor.count)
        return [(content_type, element) for element in tensor.elements()]

    return bodies


def _texts(tensor: Tensor) -> list[Body]:
    # An empty body is no request, but an empty text is a text.
    return [(content_type, body) if body else (JSON, b'""') for content_type, body in _encoded(TEXT)(tensor)]


def _no_bytes(tensor: Tensor) -> list[Body]:
    raise refused(f"input {tensor.name!r} is an array: send it with a datatype of numbers, not as BYTES")


_SPLIT_BYTES: Mapping[str, Callable[[Tensor], list[Body]]] = {
    "image": _encoded(None),
    "any": _encoded(None),
    "bytes": _encoded(content_types.BYTES),
    "json": _encoded(JSON),
    "text": _texts,
}


# Numbers.


def _arrays(tensor: Tensor, *, batched: bool) -> tuple[tuple[int, ...], list[Body]]:
    if not batched:
        return (), [(NPY, _npy(tensor.datatype, tensor.shape, tensor.buffer()))]
    count = _rows(tensor)
    return (count,), [(NPY, _npy(tensor.datatype, tensor.shape[1:], row)) for row in _cut(tensor, count)]


def _rows(tensor: Tensor) -> int:
    """How many there are along the first dimension."""
    if not tensor.shape:
        raise refused(f"input {tensor.name!r} needs a first dimension: the model takes many inputs at once")
    _check_count(tensor, tensor.shape[0])
    return tensor.shape[0]


def _npy(datatype: str, shape: Sequence[int], data: bytes | memoryview) -> bytes:
    return write_npy(DATATYPES[datatype], shape, widen(data) if datatype == "BF16" else data)


def _json_numbers(tensor: Tensor, schema: Any, *, batched: bool) -> tuple[tuple[int, ...], list[Body]]:
    if is_scalar(schema):
        _check_count(tensor, tensor.count)
        return tensor.shape, [(JSON, _json(tensor, (), one)) for one in _cut(tensor, tensor.count)]
    if not isinstance(schema, Mapping) or schema.get("type") != "array":
        raise refused(f"input {tensor.name!r} is no array: send it as BYTES, each element the text of a JSON value")
    if not batched:
        return (), [(JSON, _json(tensor, tensor.shape, tensor.buffer()))]
    count = _rows(tensor)
    return (count,), [(JSON, _json(tensor, tensor.shape[1:], row)) for row in _cut(tensor, count)]


def _cut(tensor: Tensor, count: int) -> list[memoryview]:
    """The data of *tensor* in *count* equal parts."""
    data = memoryview(tensor.buffer())
    size = len(data) // max(count, 1)
    return [data[place * size : (place + 1) * size] for place in range(count)]


def _json(tensor: Tensor, shape: Sequence[int], data: bytes | memoryview) -> bytes:
    """The JSON value of *data*, elements of *tensor*."""
    if not data and tensor.shape != (0,):
        raise refused(f"input {tensor.name!r} has no elements: its shape is {list(tensor.shape)}")
    try:
        return gather(write_nested(DATATYPES[tensor.datatype], shape, data))
    except NotJsonError:
        raise refused(f"input {tensor.name!r} holds NaN or infinity, which the model cannot take as JSON") from None


def _pictures(tensor: Tensor) -> tuple[tuple[int, ...], list[Body]]:
    lead = shape_of_picture(tensor)[0]
    _check_count(tensor, math.prod(lead))
    return lead, [(PNG, picture) for picture in pictures_of(tensor)]


# Several parameters: one request, a JSON object of them.


def _arguments(described: Mapping[str, Any], tensors: Sequence[Tensor]) -> bytes:
    schema = described.get("schema", {})
    kinds = kinds_of(described)
    required = schema.get("required", [])
    names = [tensor.name for tensor in tensors]
    unknown = [name for name in names if name not in kinds]
    missing = [name for name in required if name not in names]
    if unknown or missing:
        takes = ", ".join(name if name in required else f"[{name}]" for name in kinds)
        wrong = f"unknown: {one_line(unknown[0])[:80]!r}" if unknown else f"missing: {', '.join(missing)}"
        raise refused(f"the model takes the inputs {takes}; {wrong}")
    values = {
        tensor.name: msgspec.Raw(_argument(tensor, kinds[tensor.name], schema["properties"][tensor.name]))
        for tensor in tensors
    }
    return msgspec.json.encode(values)


def _argument(tensor: Tensor, kind: str, schema: Any) -> bytes:
    """The JSON value of one of several parameters."""
    if tensor.datatype == BYTES:
        return _argument_of_bytes(tensor, kind)
    if kind == "image":
        if math.prod(shape_of_picture(tensor)[0]) != 1:
            raise refused(f"input {tensor.name!r} must be one picture: the model takes several inputs, one call each")
        return _data_url(PNG, next(pictures_of(tensor)))
    if kind in {"array", "tensor"}:
        return _data_url(NPY, _npy(tensor.datatype, tensor.shape, tensor.buffer()))
    if kind in {"text", "bytes"}:
        raise refused(f"input {tensor.name!r} is {kind}: send it as BYTES, not as {tensor.datatype}")
    if is_scalar(schema):
        _require_one(tensor)
        return _json(tensor, (), tensor.buffer())
    return _json(tensor, tensor.shape, tensor.buffer())


def _argument_of_bytes(tensor: Tensor, kind: str) -> bytes:
    if kind in {"array", "tensor"}:
        _no_bytes(tensor)
    _require_one(tensor)
    element = tensor.elements()[0]
    if kind in {"image", "bytes"}:
        return _data_url(content_types.BYTES, element)
    try:
        if kind == "text":
            return msgspec.json.encode(element.decode())
        msgspec.json.decode(element)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        what = "text in UTF-8" if kind == "text" else "the text of a JSON value"
        raise refused(f"input {tensor.name!r} must be {what}: {one_line(str(error))}") from None
    return element


def _require_one(tensor: Tensor) -> None:
    if tensor.count != 1:
        raise refused(
            f"input {tensor.name!r} must have one element, not {tensor.count}: a model of several inputs takes one of"
            " each in a call"
        )


def _data_url(content_type: str, data: bytes) -> bytes:
    return msgspec.json.encode(data_urls.write(content_type, data))
