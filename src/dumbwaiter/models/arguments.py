"""From a body to the arguments of ``__call__``: the one input, or a JSON object with the parameters' names as keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dumbwaiter.content_types import JSON, ContentType, sniff_image
from dumbwaiter.errors import BadInputError
from dumbwaiter.models.codecs_json import decode_json
from dumbwaiter.models.input_codec import Buffer, InputCodec, name_of
from dumbwaiter.models.signature import Parameter
from dumbwaiter.spelling import did_you_mean

#: Kinds that no JSON object can be: such a body can only hold the arguments.
_NEVER_OBJECTS = frozenset({"image", "array", "tensor", "text"})
#: What an HTTP body in JSON wraps its input in.
_ENVELOPE = "input"


class Arguments:
    """Decoded arguments of one call."""

    __slots__ = ("by_name", "by_position")

    def __init__(self, by_position: list[Any], by_name: dict[str, Any]) -> None:
        self.by_position = by_position
        self.by_name = by_name


class SingleInput:
    """The body is the input. JSON may also wrap it under the parameter's name: ``{"image": "data:..."}``."""

    def __init__(self, parameter: Parameter, codec: InputCodec) -> None:
        self._name = parameter.name
        self._codec = codec
        # A JSON-typed input may itself be an object with such a key, and bytes are never looked into.
        self._wrapped = codec.kind in _NEVER_OBJECTS
        self.cheap = codec.cheap
        self.content_types: tuple[str, ...] = codec.content_types

    def decode(self, content_type: ContentType, body: Buffer) -> Any:
        """The model's input. Raises BadInputError."""
        if self._wrapped and content_type.is_json and bytes(body[:64]).lstrip()[:1] == b"{":
            value = decode_json(body)
            if set(value) == {self._name}:
                return self._codec.from_json(value[self._name])
        return self._codec.from_body(content_type, body)

    def describe(self) -> dict[str, Any]:
        """Kind and JSON Schema."""
        return {"name": self._name, "kind": self._codec.kind, "schema": self._codec.schema()}


class SeveralInputs:
    """The body is a JSON object of arguments; a body of another kind is the first one, if only that is required."""

    content_types: tuple[str, ...]

    def __init__(self, parameters: Sequence[Parameter], codecs: Sequence[InputCodec]) -> None:
        self._parameters = parameters
        self._codecs = dict(zip((one.name for one in parameters), codecs, strict=True))
        self._required = [one.name for one in parameters if one.required]
        self._first = codecs[0] if self._required in ([], [parameters[0].name]) else None
        self.cheap = all(codec.cheap for codec in codecs)
        self.content_types = tuple(dict.fromkeys((JSON, *(self._first.content_types if self._first else ()))))

    def decode(self, content_type: ContentType, body: Buffer) -> Arguments:
        """The call's arguments. Raises BadInputError, naming what is missing, unknown or wrong."""
        if self._first is not None and not self._holds_arguments(content_type, body):
            return self._arguments({self._parameters[0].name: self._first.from_body(content_type, body)})
        values = self._object(content_type, body)
        if set(values) == {_ENVELOPE} and _ENVELOPE not in self._codecs:
            raise BadInputError(self._enveloped(content_type))
        self._check_names(values)
        return self._arguments({name: self._one(name, value) for name, value in values.items()})

    def describe(self) -> dict[str, Any]:
        """Kind and JSON Schema of the object, and the kind of each parameter."""
        properties = {name: codec.schema() for name, codec in self._codecs.items()}
        schema = {"type": "object", "properties": properties, "required": self._required}
        kinds = {name: codec.kind for name, codec in self._codecs.items()}
        return {"kind": "arguments", "kinds": kinds, "schema": {**schema, "additionalProperties": False}}

    def _holds_arguments(self, content_type: ContentType, body: Buffer) -> bool:
        if not (content_type.is_json or content_type.opaque) or bytes(body[:64]).lstrip()[:1] != b"{":
            return False
        if content_type.is_json and self._first is not None and self._first.kind in _NEVER_OBJECTS:
            return True
        try:
            value = decode_json(body)
        except BadInputError:
            return content_type.is_json
        first = self._parameters[0]
        return (first.name in value or not first.required) and set(value) <= set(self._codecs)

    def _object(self, content_type: ContentType, body: Buffer) -> dict[str, Any]:
        expected = f"expected a JSON object with {self._names()}"
        if not (content_type.is_json or content_type.opaque or content_type.is_text):
            raise BadInputError(f"{expected}, got {content_type.essence}")
        try:
            values = decode_json(body)
        except BadInputError as error:
            sniffed = sniff_image(body)
            raise BadInputError(f"{expected}, got {sniffed}" if sniffed else f"{expected}; {error}") from None
        if not isinstance(values, dict):
            raise BadInputError(f"{expected}, got {name_of(values)}")
        return values

    def _check_names(self, values: dict[str, Any]) -> None:
        for name in values:
            if name not in self._codecs:
                hint = did_you_mean(name, self._codecs) or f"; it takes {self._names()}"
                raise BadInputError(f"unknown input {name[:60]!r}{hint}")
        missing = [name for name in self._required if name not in values]
        if missing:
            raise BadInputError(f"missing input {', '.join(map(repr, missing))}; expected {self._names()}")

    def _enveloped(self, content_type: ContentType) -> str:
        # Only the gateway takes the envelope off, and only where the body says that it is JSON.
        said = f"unknown input {_ENVELOPE!r}; it takes {self._names()}"
        if content_type.is_json:
            return f'{said}: send them without {{"{_ENVELOPE}": ...}} around them'
        return f"{said}: over HTTP send Content-Type: application/json, on a queue the arguments alone"

    def _one(self, name: str, value: Any) -> Any:
        try:
            return self._codecs[name].from_json(value)
        except BadInputError as error:
            raise BadInputError(f"input {name!r}: {error}") from None

    def _arguments(self, values: dict[str, Any]) -> Arguments:
        by_position = []
        for one in self._parameters:
            # Stop at the first gap: what follows it must be passed by name.
            if one.name not in values or not one.by_position:
                break
            by_position.append(values.pop(one.name))
        return Arguments(by_position, values)

    def _names(self) -> str:
        return ", ".join(one.name if one.required else f"[{one.name}]" for one in self._parameters)
