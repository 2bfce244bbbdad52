"""JSON in and out: plain values, msgspec and pydantic types, dataclasses, typed dicts.

What JSON cannot carry is an error, never a silent null: msgspec writes NaN as null, so what it writes is checked.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from dumbwaiter.content_types import JSON, ContentType
from dumbwaiter.errors import BadInputError, ModelLoadError, PermanentError
from dumbwaiter.models.input_codec import Buffer, InputCodec, one_line

if TYPE_CHECKING:
    from collections.abc import Callable


def decode_json(body: Buffer, decode: Callable[[Any], Any] = msgspec.json.decode) -> Any:
    """The JSON value of *body*. NaN, numbers out of range, depth beyond the stack and bad UTF-8 are BadInputErrors."""
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise BadInputError(f"the JSON body does not fit: {one_line(error)}") from None
    except msgspec.DecodeError as error:
        raise BadInputError(f"the body is not valid JSON: {_reason(body, error)}") from None
    except UnicodeDecodeError as error:
        raise BadInputError(f"the body is not valid JSON: not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise BadInputError("the JSON body is nested too deeply") from None


def convert_json(value: Any, annotation: Any) -> Any:
    """*value*, decoded from JSON, as *annotation*. Raises BadInputError."""
    try:
        return msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        raise BadInputError(f"the JSON value does not fit: {one_line(error)}") from None
    except RecursionError:
        raise BadInputError("the JSON value is nested too deeply") from None


def encode_json(value: Any, error_type: type[PermanentError] = PermanentError) -> bytes:
    """*value* as JSON, with NumPy and torch values as numbers and lists. Raises *error_type*, naming what cannot be."""
    try:
        encoded = msgspec.json.encode(value, enc_hook=_plain)
        if b"null" in encoded:
            _refuse_non_finite(msgspec.to_builtins(value, enc_hook=_plain), error_type)
    except RecursionError:
        raise error_type("the value is nested too deeply for JSON") from None
    except (TypeError, ValueError) as error:
        raise error_type(f"JSON cannot carry this {type(value).__name__}: {one_line(error)}") from None
    return encoded


class JsonCodec(InputCodec):
    """Any type that msgspec knows: numbers, dict, list, Struct, dataclass, TypedDict, unions of them."""

    kind = "json"
    cheap = True
    content_types = (JSON,)

    def __init__(self, annotation: Any) -> None:
        try:
            self._schema = msgspec.json.schema(annotation)
            self._decode = msgspec.json.Decoder(annotation).decode
        except Exception as error:  # also a NameError of the user's own dataclass, evaluated here
            name = getattr(annotation, "__name__", repr(annotation))
            raise ModelLoadError(f"no input can be decoded as {name}: {one_line(error)}") from None
        self._annotation = annotation

    def from_body(self, content_type: ContentType, body: Buffer) -> Any:
        _refuse_other(content_type)
        return decode_json(body, self._decode)

    def from_json(self, value: Any) -> Any:
        return convert_json(value, self._annotation)

    def schema(self) -> dict[str, Any]:
        return self._schema


class PydanticCodec(InputCodec):
    """A pydantic model. JSON is parsed by us first: pydantic's own parser lets NaN pass."""

    kind = "json"
    cheap = True
    content_types = (JSON,)

    def __init__(self, model: Any) -> None:
        self._model = model

    def from_body(self, content_type: ContentType, body: Buffer) -> Any:
        _refuse_other(content_type)
        return self.from_json(decode_json(body))

    def from_json(self, value: Any) -> Any:
        from pydantic import ValidationError  # noqa: PLC0415 - installed, for the model's module has imported it

        try:
            return self._model.model_validate_json(msgspec.json.encode(value))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = "".join(f".{part}" if isinstance(part, str) else f"[{part}]" for part in first["loc"])
            raise BadInputError(f"the JSON value does not fit: {one_line(first['msg'])} - at `${place}`") from None

    def schema(self) -> dict[str, Any]:
        from pydantic.errors import PydanticUserError  # noqa: PLC0415 - as above

        try:
            schema: dict[str, Any] = self._model.model_json_schema()
        except PydanticUserError:
            return {"type": "object"}  # has fields that only its own validators understand
        return schema


def _refuse_other(content_type: ContentType) -> None:
    if content_type.is_image or content_type.is_npy or content_type.essence.startswith(("audio/", "video/")):
        raise BadInputError(f"expected {JSON}, got {one_line(content_type.essence, 60)}")


def _reason(body: Buffer, error: msgspec.DecodeError) -> str:
    text = one_line(error).removeprefix("JSON is malformed: ")
    if any(word in bytes(body[:100_000]) for word in (b"NaN", b"Infinity")) and "invalid character" in text:
        return f"{text}; NaN and Infinity are not JSON"
    return text


def _plain(value: Any) -> Any:
    """What msgspec does not know, as something that it does."""
    origins = {(parent.__module__, parent.__name__) for parent in type(value).__mro__}
    if ("torch", "Tensor") in origins:
        from dumbwaiter.models.codecs_array import tensor_to_array  # noqa: PLC0415 - it imports this module

        value = tensor_to_array(value)
    for method in ("tolist", "model_dump"):  # NumPy and torch; pydantic
        if callable(convert := getattr(value, method, None)):
            return convert()
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if ("PIL.Image", "Image") in origins:
        from dumbwaiter.models.codecs_image import image_to_data_url  # noqa: PLC0415 - it imports this module

        return image_to_data_url(value)
    raise TypeError(f"objects of type {type(value).__name__} are not supported")


def _refuse_non_finite(value: Any, error_type: type[PermanentError]) -> None:
    waiting: list[tuple[str, Any]] = [("$", value)]
    while waiting:
        place, one = waiting.pop()
        if isinstance(one, float) and not math.isfinite(one):
            raise error_type(f"JSON cannot carry {one} - at `{place}`; replace it, for example by None")
        if isinstance(one, dict):
            waiting += [(f"{place}.{key}", inner) for key, inner in one.items()]
        elif isinstance(one, (list, tuple, set, frozenset)):
            waiting += [(f"{place}[{index}]", inner) for index, inner in enumerate(one)]
