"""The infer response: JSON, or JSON and binary data. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from dumbwaiter.gateway.http.problems import Headers, one_line
from dumbwaiter.gateway.oip.problems import refused
from dumbwaiter.gateway.oip.tensors import PIECE_NBYTES, Tensor, binary_nbytes, write_binary, write_json

VERSION = "1"
"""A model's queue has no versions: this is the only one."""


def check_version(model: str, version: str | None) -> None:
    """Raises ProblemError (404) for another *version* than the only one; None is whichever there is."""
    if version not in (None, VERSION):
        detail = f"model {one_line(model)!r} has no version {one_line(version)[:40]!r}; its only one is {VERSION!r}"
        raise refused(detail, status=404, code="unknown-version")


class _Parameters(msgspec.Struct, frozen=True):
    binary_data_size: int


class _Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: _Parameters | None = None


class _Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[_Output]


_AFTER_OUTPUT = b"}]}"


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """The 200 response: *nbytes* is the length of its body, which pieces() writes anew each time."""

    headers: Headers
    nbytes: int
    pieces: Callable[[], Iterator[bytes]]


def write_response(tensor: Tensor, *, model: str, id_: str | None, binary: bool) -> Response:
    """The response that carries *tensor*; *id_* is what the request said.

    JSON is written twice, now for its length and to see that it can be written, and once more to be sent: that takes
    less than to hold it, since it may be a dozen times as long as the tensor. Raises ProblemError (400) when JSON is
    wanted and cannot carry the output.
    """
    size = binary_nbytes(tensor) if binary else None
    output = _Output(
        name=tensor.name,
        datatype=tensor.datatype,
        shape=tensor.shape,
        parameters=None if size is None else _Parameters(size),
    )
    document = msgspec.json.encode(_Document(model_name=model, model_version=VERSION, id=id_, outputs=[output]))

    def pieces() -> Iterator[bytes]:
        return coalesced(_binary(document, tensor) if binary else _json(document, tensor))

    nbytes = sum(map(len, pieces())) if size is None else len(document) + size
    headers: Headers = [
        (b"content-type", b"application/octet-stream" if binary else b"application/json"),
        (b"content-length", str(nbytes).encode()),
    ]
    if binary:
        headers.append((b"inference-header-content-length", str(len(document)).encode()))
    return Response(headers=headers, nbytes=nbytes, pieces=pieces)


def _binary(document: bytes, tensor: Tensor) -> Iterator[bytes]:
    yield document
    yield from write_binary(tensor)


def _json(document: bytes, tensor: Tensor) -> Iterator[bytes]:
    yield document.removesuffix(_AFTER_OUTPUT)
    yield b',"data":'
    yield from write_json(tensor)
    yield _AFTER_OUTPUT + b"\n"


def coalesced(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """*pieces*, the small ones together, so that none is empty and few are worth no system call."""
    waiting: list[bytes] = []
    nbytes = 0
    for piece in pieces:
        waiting.append(piece)
        nbytes += len(piece)
        if nbytes >= PIECE_NBYTES:
            yield b"".join(waiting)
            waiting, nbytes = [], 0
    if nbytes:
        yield b"".join(waiting)
