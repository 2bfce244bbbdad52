"""The infer response: JSON, or JSON and binary data. Pure."""

from __future__ import annotations

import msgspec

from dumbwaiter.gateway.http.problems import Headers, one_line
from dumbwaiter.gateway.oip.problems import refused
from dumbwaiter.gateway.oip.tensors import Tensor, write_binary, write_json

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
    data: msgspec.Raw | None = None


class _Response(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[_Output]


def write_response(tensor: Tensor, *, model: str, id_: str | None, binary: bool) -> tuple[Headers, bytes]:
    """Headers and body of the 200 response; *id_* is what the request said. Raises ProblemError (400) when JSON is
    wanted and cannot carry the output.
    """
    data = write_binary(tensor) if binary else b""
    output = _Output(
        name=tensor.name,
        datatype=tensor.datatype,
        shape=tensor.shape,
        parameters=_Parameters(len(data)) if binary else None,
        data=None if binary else msgspec.Raw(write_json(tensor)),
    )
    response = _Response(model_name=model, model_version=VERSION, id=id_, outputs=[output])
    header = msgspec.json.encode(response)
    body = header + data if binary else header + b"\n"
    headers: Headers = [
        (b"content-type", b"application/octet-stream" if binary else b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if binary:
        headers.append((b"inference-header-content-length", str(len(header)).encode()))
    return headers, body
