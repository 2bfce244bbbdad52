"""What a model takes and gives, as the protocol's metadata: from its signature. Pure.

Where a signature says less than the protocol wants to know, the shape is -1 and an array's datatype FP32; a request of
another datatype is taken all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dumbwaiter.gateway.oip.datatypes import BY_NPY, BYTES
from dumbwaiter.gateway.oip.inputs import INPUT, kinds_of
from dumbwaiter.gateway.oip.requests import OUTPUT
from dumbwaiter.gateway.oip.responses import VERSION

PLATFORM = "dumbwaiter"
EXTENSIONS = ("binary_tensor_data", "schedule_policy")

_SCALARS = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}
_LISTED_ARRAY: Mapping[str, Any] = {"type": "array", "items": {"type": "number"}}
_ANY = -1
#: ``nested lists of float32``: what an array's schema says of its type -> that of .npy.
_NUMPY_NAMES = {
    "bool": "b1",
    **{f"{kind}{8 * size}": f"{kind[0]}{size}" for kind in ("int", "uint") for size in (1, 2, 4, 8)},
    **{f"float{8 * size}": f"f{size}" for size in (2, 4, 8)},
}


def describe(model: str, signature: Mapping[str, Any]) -> dict[str, Any]:
    """The model's metadata response."""
    return {
        "name": model,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": _inputs(signature),
        "outputs": [_output(signature)],
    }


def _inputs(signature: Mapping[str, Any]) -> list[dict[str, Any]]:
    described = signature.get("input", {})
    if described.get("kind") == "arguments":
        schemas: Mapping[str, Any] = described["schema"]["properties"]
        return [_tensor(name, kind, schemas[name], lead=[]) for name, kind in kinds_of(described).items()]
    name, kind, schema = described.get("name", INPUT), described.get("kind", "any"), described.get("schema", {})
    return [_tensor(name, kind, schema, lead=[_ANY] if _is_split(signature) else [])]


def _output(signature: Mapping[str, Any]) -> dict[str, Any]:
    described = signature.get("output", {})
    lead = [_ANY] if _is_split(signature) else []
    kind, schema = described.get("kind", "any"), described.get("schema", {})
    if signature.get("streaming"):
        kind, schema = "json", {"type": "array", "items": _chunk_of(kind, schema)}
    if kind == "json":
        datatype, own = _of_json(schema, {**_SCALARS, "string": BYTES})
        tensor = {"name": OUTPUT, "datatype": datatype, "shape": [*lead, *([_ANY] * own)] or [1]}
    else:
        tensor = _tensor(OUTPUT, kind, schema, lead=lead)
    # Of an output that nobody describes even the number of elements is unknown.
    return {**tensor, "shape": [_ANY]} if tensor["datatype"] == BYTES and tensor["shape"] == [1] else tensor


def _chunk_of(kind: str, schema: Any) -> Any:
    """The schema of a chunk where it stands in the list of all, which is JSON: bytes are texts there, arrays lists."""
    if kind == "json":
        return schema
    return _LISTED_ARRAY if kind in {"array", "tensor"} else {"type": "string"}


def _is_split(signature: Mapping[str, Any]) -> bool:
    """Whether the first dimensions of the input count requests to the model."""
    described = signature.get("input", {})
    kind = described.get("kind", "any")
    if signature.get("batched") or kind not in {"arguments", "array", "tensor", "json"}:
        return True
    return kind == "json" and _of_json(described.get("schema", {}))[1] == 0


def _tensor(name: str, kind: str, schema: Any, *, lead: list[int]) -> dict[str, Any]:
    datatype, own = BYTES, 0
    if kind in {"array", "tensor"}:
        datatype, own = _datatype_of(schema), 1
    elif kind == "json":
        datatype, own = _of_json(schema)
    return {"name": name, "datatype": datatype, "shape": [*lead, *([_ANY] * own)] or [1]}


def _datatype_of(schema: Any) -> str:
    said = str(schema.get("description", "")).rpartition(" ")[2] if isinstance(schema, Mapping) else ""
    return BY_NPY[_NUMPY_NAMES[said]].name if said in _NUMPY_NAMES else "FP32"


def _of_json(schema: Any, scalars: Mapping[str, str] = _SCALARS) -> tuple[str, int]:
    """The datatype and how many dimensions: of *scalars* in lists, else BYTES."""
    dimensions = 0
    while isinstance(schema, Mapping) and schema.get("type") == "array":
        schema = schema.get("items")
        dimensions += 1
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    return (scalars[kind], dimensions) if isinstance(kind, str) and kind in scalars else (BYTES, 0)
