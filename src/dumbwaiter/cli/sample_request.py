"""A request to try a model with, made up from what the model says it takes. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

Schema = Mapping[str, Any]

#: The smallest picture, one white pixel, for models that take a picture beside other arguments.
_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mP4DwABAQEAHLCMmQAAAABJRU5ErkJggg=="
)
_KEY = ' -H "Authorization: Bearer $DUMBWAITER_API_KEY"'
_FORMATS = {
    "byte": "c29tZSBieXRlcw==",
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "decimal": "0.5",
    "duration": "PT1S",
    "email": "someone@example.com",
    "time": "12:00:00Z",
    "uri": "data:text/plain,some%20bytes",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
}


def prediction_url(address: str, model: str) -> str:
    """Where predictions of *model* are asked for."""
    return f"{address}/v1/models/{quote(model, safe='')}/predictions"


def curl_line(address: str, model: str, signature: Mapping[str, Any], *, picture: str, needs_key: bool = False) -> str:
    """A command that asks *model* for a prediction, by what its *signature* says it takes.

    It works as it stands, if *picture* is the name of a JPEG; where it *needs_key*, with one in DUMBWAITER_API_KEY.
    """
    curl = f"curl{_KEY}" if needs_key else "curl"
    url = shlex.quote(prediction_url(address, model))
    takes: Mapping[str, Any] = signature.get("input", {})
    kind = takes.get("kind", "any")
    # A picture alone will do, too, where the other arguments have defaults.
    if kind == "image" or "image/jpeg" in takes.get("content_types", ()):
        return f"{curl} --data-binary @{shlex.quote(picture)} -H 'Content-Type: image/jpeg' {url}"
    if kind in {"text", "any"}:
        return f"{curl} --data-binary 'some text' -H 'Content-Type: text/plain' {url}"
    if kind == "bytes":
        return f"{curl} --data-binary 'some bytes' -H 'Content-Type: application/octet-stream' {url}"
    body = msgspec.json.encode({"input": sample_value(takes.get("schema", {}))}).decode()
    return f"{curl} -d {shlex.quote(body)} -H 'Content-Type: application/json' {url}"


def sample_value(schema: Schema) -> Any:
    """A JSON value that fits *schema*; of an object, only what it requires, or its first property if that is nothing.

    What JSON Schema can say beyond types, choices, bounds and lengths is not heeded.
    """
    return _sample(schema, {}, frozenset())


def _sample(schema: Schema, definitions: Schema, within: frozenset[str]) -> Any:
    """*within* are the references that lead here, so that a type that holds itself ends."""
    definitions = {**definitions, **schema.get("$defs", {})}
    if reference := schema.get("$ref"):
        if reference in within:
            return None
        within |= {reference}
        schema = definitions.get(reference.rpartition("/")[2], {})
    said = [schema[key] for key in ("default", "const") if key in schema]
    said += [one for key in ("examples", "enum") for one in schema.get(key, ())]
    if said:
        return said[0]
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        by_wish = sorted(choices, key=lambda one: (one.get("$ref") in within, one.get("type") == "null"))
        return _sample(by_wish[0], definitions, within)
    return _of_type(schema, definitions, within)


def _of_type(schema: Schema, definitions: Schema, within: frozenset[str]) -> Any:
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind in {"object", "array"}:
        return (_object if kind == "object" else _array)(schema, definitions, within)
    if kind in {"integer", "number"}:
        return _number(schema, 1 if kind == "integer" else 0.5)
    return {"string": _string(schema), "boolean": True}.get(kind)


def _object(schema: Schema, definitions: Schema, within: frozenset[str]) -> dict[str, Any]:
    properties: dict[str, Schema] = schema.get("properties", {})
    if not properties:
        rest = schema.get("additionalProperties")
        rest = rest if isinstance(rest, Mapping) and rest else {"type": "integer"}
        return {} if rest.get("$ref") in within else {name: _sample(rest, definitions, within) for name in ("a", "b")}
    required = schema.get("required") or list(properties)[:1]
    return {name: _sample(properties.get(name, {}), definitions, within) for name in required}


def _array(schema: Schema, definitions: Schema, within: frozenset[str]) -> list[Any]:
    if "prefixItems" in schema:
        return [_sample(one, definitions, within) for one in schema["prefixItems"]]
    items = schema.get("items")
    if not isinstance(items, Mapping) or not items:
        return [1, 2, 3]
    if items.get("$ref") in within:
        return []
    return [_sample(items, definitions, within)] * max(1, schema.get("minItems", 1))


def _string(schema: Schema) -> str:
    if str(schema.get("contentMediaType", "")).startswith("image/"):
        return _PIXEL
    text = _FORMATS.get(schema.get("format", ""), "some text")
    return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]


def _number(schema: Schema, wish: float) -> Any:
    """*wish*, or the bound that it oversteps."""
    if wish < schema.get("minimum", wish):
        return schema["minimum"]
    if wish > schema.get("maximum", wish):
        return schema["maximum"]
    if wish <= schema.get("exclusiveMinimum", wish - 1):
        return schema["exclusiveMinimum"] + 1
    if wish >= schema.get("exclusiveMaximum", wish + 1):
        return schema["exclusiveMaximum"] - 1
    return wish
