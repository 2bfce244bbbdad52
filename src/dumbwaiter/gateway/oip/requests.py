"""From the body of an infer request to tensors and wishes. Pure.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md, and of
Triton's extensions the binary tensors and the schedule policy. A parameter that would change what a request means
and is not known here is refused, not passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from dumbwaiter.gateway.http.problems import one_line
from dumbwaiter.gateway.oip.datatypes import BYTES
from dumbwaiter.gateway.oip.problems import refused
from dumbwaiter.gateway.oip.tensors import (
    ELEMENT_NBYTES,
    Tensor,
    check_shape,
    most_reading_nbytes,
    read_binary,
    read_json,
)
from dumbwaiter.message import GREATEST_PRIORITY, LEAST_PRIORITY

OUTPUT = "output"
"""The name of the one output that every model has here."""
MOST_INPUTS = 64
MOST_PARAMETERS_NBYTES = 16 * 1024

#: They say how something is to be written, which is settled here by the datatype, or are for a stream of responses.
_HARMLESS = frozenset({"content_type", "headers", "triton_enable_empty_final_response"})
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_MICROSECOND = 1e-6

_Length = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Parameters = Mapping[str, Any]


class _Input(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: list[_Length]
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    data: msgspec.Raw = msgspec.Raw(b"")


class _Output(msgspec.Struct, gc=False):
    name: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")


class _Request(msgspec.Struct, gc=False):
    inputs: list[_Input]
    id: str | None = None
    outputs: list[_Output] = []
    parameters: msgspec.Raw = msgspec.Raw(b"{}")


class InferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks. *binary*: the output as binary data; *priority* as messages have it (9 is served first);
    *timeout* in seconds, None when it says none.
    """

    inputs: tuple[Tensor, ...]
    id: str | None
    binary: bool
    priority: int
    timeout: float | None


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_parameters = msgspec.json.Decoder(dict[str, bool | int | float | str | None]).decode


class Said(msgspec.Struct, frozen=True):
    """A request whose tensors are still to be read; *binary* is what follows its JSON."""

    document: _Request
    binary: memoryview


def read_request(body: bytes, header_length: int | None) -> InferRequest:
    """The request in *body*, as understand() and read_tensors() find it."""
    return read_tensors(understand(body, header_length))


def understand(body: bytes, header_length: int | None) -> Said:
    """What *body* says: *header_length* bytes of JSON (None: all of it), then the binary data.

    Raises ProblemError (400), as read_tensors() does.
    """
    if not body:
        raise refused('the body is empty; send {"inputs": [...]}', code="empty-body")
    if header_length is not None and header_length > len(body):
        raise refused(f"Inference-Header-Content-Length is {header_length}, but the body has {len(body)} bytes")
    document = _read_header(body if header_length is None else body[:header_length])
    return Said(document, memoryview(body)[len(body) if header_length is None else header_length :])


def most_request_nbytes(said: Said) -> int:
    """A bound for what read_tensors() takes beside the body. Raises as that does."""
    nbytes = 0
    for one in said.document.inputs:
        count = check_shape(one.name, one.datatype, one.shape)
        if one.data:
            nbytes += len(bytes(one.data)) + most_reading_nbytes(one.datatype, count, bytes(one.data))
        elif one.datatype == BYTES:
            nbytes += len(said.binary) + count * ELEMENT_NBYTES
    return nbytes


def read_tensors(said: Said) -> InferRequest:
    """The request that *said* is. Raises ProblemError (400), naming the input or parameter and what is wrong."""
    parameters = _read_parameters("the request", said.document.parameters)
    _refuse_unknown("the request", parameters, {"binary_data_output", "priority", "timeout", *_SEQUENCE})
    _refuse_sequences(parameters)
    return InferRequest(
        inputs=_read_inputs(said.document.inputs, said.binary),
        id=said.document.id,
        binary=_is_binary(said.document.outputs, parameters),
        priority=_priority(parameters),
        timeout=_timeout(parameters),
    )


def _read_header(header: bytes) -> _Request:
    try:
        said = _decode_request(header)
    except msgspec.ValidationError as error:
        raise refused(f"this is no inference request: {one_line(str(error))}") from None
    except RecursionError:
        raise refused("the JSON is nested too deeply", code="invalid-json") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "" if header[:1] == b"{" else "; with binary data, Inference-Header-Content-Length is the JSON's length"
        raise refused(f"the request is not JSON: {one_line(str(error))}{hint}", code="invalid-json") from None
    if not 0 < len(said.inputs) <= MOST_INPUTS:
        raise refused(f"the request has {len(said.inputs)} inputs; send 1 to {MOST_INPUTS}")
    return said


def _read_inputs(inputs: Sequence[_Input], binary: memoryview) -> tuple[Tensor, ...]:
    tensors: dict[str, Tensor] = {}
    offset = 0
    for one in inputs:
        where = f"input {one_line(one.name)[:80]!r}"
        if one.name in tensors:
            raise refused(f"{where} is there twice")
        check_shape(one.name, one.datatype, one.shape)
        size = _binary_size(where, one)
        if size is None:
            tensors[one.name] = read_json(one.name, one.datatype, one.shape, bytes(one.data))
            continue
        if size > len(binary) - offset:
            left = len(binary) - offset
            raise refused(f"{where}: binary_data_size is {size}, but {left} bytes of binary data are left for it")
        tensors[one.name] = read_binary(one.name, one.datatype, one.shape, binary[offset : offset + size])
        offset += size
    if offset != len(binary):
        raise refused(f"{len(binary) - offset} bytes of binary data belong to no input")
    return tuple(tensors.values())


def _binary_size(where: str, one: _Input) -> int | None:
    """None: its data stand in the JSON."""
    parameters = _read_parameters(where, one.parameters)
    _refuse_unknown(where, parameters, {"binary_data_size"})
    size = parameters.get("binary_data_size")
    if size is None:
        if not one.data:
            raise refused(f'{where} has neither "data" nor binary data')
        return None
    if one.data:
        raise refused(f'{where} has both "data" and binary data')
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise refused(f"{where}: binary_data_size must be a number of bytes, not {one_line(repr(size))[:60]}")
    return size


def _is_binary(outputs: Sequence[_Output], parameters: _Parameters) -> bool:
    binary = _flag("the request", "binary_data_output", parameters) or False
    if len(outputs) > 1 or any(one.name != OUTPUT for one in outputs):
        names = ", ".join(repr(one_line(one.name)[:80]) for one in outputs[:5])
        raise refused(f"the model has one output, {OUTPUT!r}; the request asks for {names}")
    for one in outputs:
        where = f"output {one.name!r}"
        wishes = _read_parameters(where, one.parameters)
        _refuse_unknown(where, wishes, {"binary_data", "classification"})
        if wishes.get("classification"):
            raise refused(f"{where}: there is no classification here; ask without class_count and sort the output")
        wish = _flag(where, "binary_data", wishes)
        binary = binary if wish is None else wish
    return binary


def _priority(parameters: _Parameters) -> int:
    """Triton counts from 1, the most urgent, upwards, and 0 is the usual one."""
    level = _whole("priority", parameters)
    return 0 if level == 0 else max(GREATEST_PRIORITY + 1 - level, LEAST_PRIORITY)


def _timeout(parameters: _Parameters) -> float | None:
    microseconds = _whole("timeout", parameters)
    return min(microseconds, 2**63) * _MICROSECOND if microseconds else None


def _whole(name: str, parameters: _Parameters) -> int:
    value = parameters.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise refused(f"the request: parameter {name} must be a whole number, not {one_line(repr(value))[:60]}")
    return value


def _flag(where: str, name: str, parameters: _Parameters) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise refused(f"{where}: parameter {name} must be true or false, not {one_line(repr(value))[:60]}")
    return value


def _read_parameters(where: str, text: msgspec.Raw) -> dict[str, Any]:
    if len(bytes(text)) > MOST_PARAMETERS_NBYTES:
        raise refused(f"{where} has more than {MOST_PARAMETERS_NBYTES} bytes of parameters")
    try:
        return _decode_parameters(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refused(
            f"{where}: parameters are an object of texts, numbers and booleans: {one_line(str(error))}"
        ) from None


def _refuse_unknown(where: str, parameters: _Parameters, known: set[str]) -> None:
    for name in parameters:
        if name.startswith("shared_memory_"):
            raise refused(f"{where}: there is no shared memory here; send the data")
        if name not in known and name not in _HARMLESS:
            raise refused(
                f"{where}: unknown parameter {one_line(name)[:60]!r}; known: {', '.join(sorted(known - {*_SEQUENCE}))}"
            )


def _refuse_sequences(parameters: _Parameters) -> None:
    if any(parameters.get(name) not in (None, 0, "", False) for name in _SEQUENCE):
        raise refused("there are no sequences here: each request stands alone, and any worker may take it")
