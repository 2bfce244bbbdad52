"""What a form may say to a model, by what the model says it takes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

_DEEPEST = 20
"""References within a schema may lead in a circle."""
_SEVERAL = frozenset({"arguments", "any"})


class Parameters:
    """The parameters of a model whose *signature* is that of models.contract.LoadedModel.describe(); empty: unknown."""

    def __init__(self, signature: Mapping[str, Any]) -> None:
        takes: Mapping[str, Any] = signature.get("input", {})
        schema: Mapping[str, Any] = takes.get("schema", {})
        self.only: str | None = None
        """The one parameter of a model that takes one input, which no object of arguments can be; else None."""
        self._definitions: Mapping[str, Any] = schema.get("$defs", {})
        self._schemas: Mapping[str, Any] = _resolved(schema, self._definitions).get("properties", {})
        if takes.get("kind", "any") not in _SEVERAL and not _admits(schema, "object", self._definitions):
            self.only = name = takes.get("name", "input")
            self._schemas = {name: schema}

    def __contains__(self, name: str) -> bool:
        """Whether there is a parameter *name*, as far as is known."""
        return name in self._schemas

    def takes_text(self, name: str) -> bool:
        """Whether the parameter *name* may be a text, as far as is known."""
        schema = self._schemas.get(name, {})
        return _admits(schema, "string", {**self._definitions, **schema.get("$defs", {})})

    def value_of(self, name: str, text: str) -> msgspec.Raw | str:
        """What the *text* of a field without a type means for the parameter *name*: JSON where that takes no text."""
        if self.takes_text(name):
            return text
        try:
            msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return text  # the model's own refusal names what it wants
        return msgspec.Raw(text.encode())


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(_DEEPEST):
        if "$ref" not in schema:
            return schema
        schema = definitions.get(schema["$ref"].rpartition("/")[2], {})
    return {}


def _admits(schema: Mapping[str, Any], kind: str, definitions: Mapping[str, Any], depth: int = 0) -> bool:
    """Whether a value of the JSON type *kind* may fit *schema*; where that cannot be told, it may."""
    schema = _resolved(schema, definitions)
    if depth > _DEEPEST:
        return True
    for choices in (schema.get("anyOf"), schema.get("oneOf")):
        if choices:
            return any(_admits(one, kind, definitions, depth + 1) for one in choices)
    if "enum" in schema or "const" in schema:
        python = {"string": str, "object": dict}[kind]
        return any(isinstance(one, python) for one in schema.get("enum", [schema.get("const")]))
    if "type" in schema:
        said = schema["type"]
        return kind in ([said] if isinstance(said, str) else said)
    return all(_admits(one, kind, definitions, depth + 1) for one in schema.get("allOf", ()))
