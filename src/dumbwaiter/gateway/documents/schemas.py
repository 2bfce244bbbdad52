"""From a model's signature (models.contract.LoadedModel.describe) to JSON Schemas inside a larger document. Pure.

Source of the schemas' form: JSON Schema 2020-12, which OpenAPI 3.1 and AsyncAPI 3.0 both hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

Schema = dict[str, Any]

OUTPUT_TYPES: Mapping[str, str] = {
    "image": "image/png",
    "array": "application/x-npy",
    "tensor": "application/x-npy",
    "bytes": "application/octet-stream",
    "text": "text/plain",
}
"""Kind of an output that is sent as it is -> its content type. Others are JSON."""

_REF = re.compile(r"#/(?:\$defs|definitions)/([^/]+)")
_DATA_URL: Schema = {"type": "string", "description": "a data: URL"}
_DEEPEST_EXAMPLE = 6
_BY_FORMAT: Mapping[str, str] = {
    "date-time": "2026-01-31T12:00:00Z",
    "date": "2026-01-31",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "someone@example.com",
    "uri": "https://example.com/",
}


class Signature(msgspec.Struct, frozen=True):
    """One model: its *name* and what a worker says of it; an empty *says* when none has spoken yet."""

    name: str
    says: Mapping[str, Any] = {}

    @property
    def streaming(self) -> bool:
        """Its output comes in chunks."""
        return bool(self.says.get("streaming"))

    @property
    def input_kind(self) -> str:
        """``image``, ``array``, ``tensor``, ``text``, ``bytes``, ``json``, ``arguments`` or ``any``."""
        return str(_object(self.says.get("input")).get("kind", "any"))

    @property
    def output_kind(self) -> str:
        """``image``, ``array``, ``tensor``, ``text``, ``bytes``, ``json`` or ``any``."""
        return str(_object(self.says.get("output")).get("kind", "any"))

    @property
    def content_types(self) -> tuple[str, ...]:
        """What a raw body may be, JSON aside; ``*/*`` where anything goes."""
        said = _object(self.says.get("input")).get("content_types")
        raw = [one for one in said if isinstance(one, str)] if isinstance(said, list) else ["*/*"]
        return tuple(one for one in raw if one != "application/json")

    @property
    def outline(self) -> dict[str, Any]:
        """What it says but for the schemas, whose references would lead nowhere in another document."""
        sides = {
            side: {key: value for key, value in _object(self.says.get(side)).items() if key != "schema"}
            for side in ("input", "output")
        }
        return {"name": self.name, **self.says, **(sides if self.says else {})}


class Components:
    """The ``components/schemas`` of a document, filled as schemas are brought in."""

    def __init__(self) -> None:
        self.schemas: dict[str, Schema] = {}

    def bring_in(self, schema: Any, prefix: str) -> Schema:
        """*schema* with its own definitions moved here under names that begin with *prefix*, and its references turned.

        A schema that stands inside another document cannot say ``#/$defs/X``: that would mean the document's own.
        """
        return self._moved(schema, prefix, {}) if isinstance(schema, dict) else {}

    def _moved(self, schema: Any, prefix: str, names: Mapping[str, str]) -> Any:
        if isinstance(schema, list):
            return [self._moved(one, prefix, names) for one in schema]
        if not isinstance(schema, dict):
            return schema
        definitions = {**_object(schema.get("definitions")), **_object(schema.get("$defs"))}
        if definitions:
            names = {**names, **{name: self._name(prefix, name) for name in definitions}}
            for name, definition in definitions.items():
                self.schemas[names[name]] = self._moved(definition, prefix, names)
        rest = {key: value for key, value in schema.items() if key not in ("$defs", "definitions", "$id", "$schema")}
        return {key: self._member(key, value, prefix, names) for key, value in rest.items()}

    def _member(self, key: str, value: Any, prefix: str, names: Mapping[str, str]) -> Any:
        if key in ("const", "default", "enum", "example", "examples"):
            return value  # data, which may look like a schema
        if key in ("properties", "patternProperties") and isinstance(value, dict):
            return {name: self._moved(one, prefix, names) for name, one in value.items()}
        if key == "$ref" and isinstance(value, str):
            match = _REF.fullmatch(value)
            name = names.get(unquote(match[1]).replace("~1", "/").replace("~0", "~")) if match else None
            return value if name is None else f"#/components/schemas/{name}"
        if key == "mapping" and isinstance(value, dict):  # of a discriminator
            return {name: self._member("$ref", one, prefix, names) for name, one in value.items()}
        return self._moved(value, prefix, names)

    def _name(self, prefix: str, name: str) -> str:
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", f"{prefix}.{name}")
        number, unique = 2, plain
        while unique in self.schemas:
            number, unique = number + 1, f"{plain}.{number}"
        self.schemas[unique] = {}  # taken, before its definition names it
        return unique


def input_schema(model: Signature, components: Components) -> Schema:
    """What may stand under ``input`` in a JSON body."""
    schema = components.bring_in(_object(model.says.get("input")).get("schema"), model.name)
    if model.input_kind not in ("image", "bytes"):
        return schema
    what = "picture" if model.input_kind == "image" else "file"
    schema.pop("format", None)  # a data: URL is longer than many tools' idea of a URI
    return {**schema, "description": f"the {what}, as a data: URL or an https: URL"}


def output_schema(model: Signature, components: Components) -> Schema:
    """What stands under ``output`` in a prediction of *model*."""
    kind = model.output_kind
    if kind == "json":
        schema = components.bring_in(_object(model.says.get("output")).get("schema"), f"{model.name}.output")
    elif kind == "text":
        schema = {"type": "string"}
    elif kind in OUTPUT_TYPES and not model.streaming:
        schema = {**_DATA_URL, "contentMediaType": OUTPUT_TYPES[kind]}
    else:
        schema = {}
    if model.streaming and kind != "any":
        return {"type": "array", "items": schema, "description": "all chunks, in order"}
    return schema


def raw_output_type(model: Signature) -> str | None:
    """The content type of an output that is sent as it is; None when it comes as JSON."""
    return None if model.streaming else OUTPUT_TYPES.get(model.output_kind)


def example_of(schema: Any, components: Components, depth: int = 0) -> Any:
    """A small value that *schema* likely takes: what its author gave as an example, or else made from its types."""
    if not isinstance(schema, dict) or depth > _DEEPEST_EXAMPLE:
        return None
    for name in ("example", "default", "const"):
        if name in schema:
            return schema[name]
    for name in ("examples", "enum"):
        if isinstance(given := schema.get(name), list) and given:
            return given[0]
    if isinstance(ref := schema.get("$ref"), str):
        return example_of(components.schemas.get(ref.rpartition("/")[2]), components, depth + 1)
    for name in ("anyOf", "oneOf", "allOf"):
        if isinstance(given := schema.get(name), list) and given:
            return example_of(given[0], components, depth + 1)
    return _by_type(schema, components, depth)


def _by_type(schema: Schema, components: Components, depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind == "object" or "properties" in schema:
        required = schema.get("required")
        wanted = required if isinstance(required, list) else list(_object(schema.get("properties")))
        properties = _object(schema.get("properties"))
        return {name: example_of(properties.get(name, {}), components, depth + 1) for name in wanted}
    if kind == "array":
        return _example_list(schema, components, depth)
    if kind in ("number", "integer"):
        above: float = schema.get("exclusiveMinimum", schema.get("minimum", 1) - 1)
        return min(above + 1, schema.get("maximum", above + 1))
    if kind == "string":
        return _example_text(schema)
    return {"boolean": True, "null": None}.get(str(kind), "...")


def _example_list(schema: Schema, components: Components, depth: int) -> list[Any]:
    if isinstance(prefix := schema.get("prefixItems"), list):
        return [example_of(one, components, depth + 1) for one in prefix]
    if not isinstance(items := schema.get("items"), dict):
        return [[0.0, 1.0], [2.0, 3.0]]  # an array's schema says no more than "nested lists"
    return [example_of(items, components, depth + 1)] * max(1, min(3, int(schema.get("minItems", 1))))


def _example_text(schema: Schema) -> str:
    if schema.get("contentMediaType") == "image/*":
        return "data:image/png;base64," + _PIXEL
    return _BY_FORMAT.get(str(schema.get("format")), "a text"[: schema.get("maxLength", 6)])


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC"
