"""Codecs by annotation and by content type; for the runner, and for clients on the other side.

Outputs go by their value: an image is image/png, str text/plain, bytes application/octet-stream, all else JSON. An
array or tensor is nested JSON lists, or application/x-npy when the model's annotation says array or tensor.
"""

from __future__ import annotations

import mimetypes
import typing
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from dumbwaiter.content_types import BYTES, JSON, NPY, PNG, TEXT, parse_content_type, sniff_image
from dumbwaiter.errors import BadInputError, PermanentError
from dumbwaiter.models.codecs_array import ArrayCodec, TensorCodec, decode_npy, encode_npy, tensor_to_array
from dumbwaiter.models.codecs_image import ImageCodec, check_image_mode, decode_image, encode_png
from dumbwaiter.models.codecs_json import JsonCodec, PydanticCodec, decode_json, encode_json
from dumbwaiter.models.codecs_text import AnyCodec, BytesCodec, TextCodec, decode_text
from dumbwaiter.models.input_codec import Buffer, InputCodec

_IMAGE_NAMES = frozenset({"image", "img", "picture", "photo", "photograph"})
#: Class by module and name -> kind: recognised without importing what may not be installed.
_KINDS = {
    ("PIL.Image", "Image"): "image",
    ("numpy", "ndarray"): "array",
    ("torch", "Tensor"): "tensor",
    ("pydantic.main", "BaseModel"): "pydantic",
}
_OUTPUT_PIXELS = 89_478_485  # Pillow's own default, so that a client's process keeps that guard as it was


def kind_of(annotation: Any) -> str:
    """``image``, ``array``, ``tensor``, ``pydantic``, ``text``, ``bytes``, ``any`` or ``json`` (all the rest)."""
    plain = plain_type(annotation)
    if plain is str:
        return "text"
    if plain in (bytes, bytearray, memoryview):
        return "bytes"
    if plain is Any or plain is object:
        return "any"
    for parent in getattr(plain, "__mro__", ()):
        if kind := _KINDS.get((parent.__module__, parent.__name__)):
            return kind
    return "json"


def plain_type(annotation: Any) -> Any:
    """The class behind Annotated, ``X | None`` and NDArray[...]; the annotation itself where there is none."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return plain_type(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        members = [member for member in get_args(annotation) if member is not type(None)]
        return plain_type(members[0]) if len(members) == 1 else annotation
    if isinstance(origin, type) and (origin.__module__, origin.__name__) in _KINDS:
        return origin
    return annotation


def input_codec(annotation: Any, name: str, *, image_mode: str | None, max_pixels: int) -> InputCodec:
    """The codec of a parameter: by its annotation, else (None) by a name such as ``pil_image``, else by content type.

    Raises ModelLoadError for a type that no body can become, MissingExtraError where its library is not installed.
    """
    images = ImageCodec(mode=image_mode, max_pixels=max_pixels)
    kind = kind_of(annotation) if annotation is not None else "image" if _sounds_like_an_image(name) else "any"
    if kind == "image":
        check_image_mode(image_mode)
    makers: dict[str, Callable[[], InputCodec]] = {
        "image": lambda: images,
        "array": lambda: ArrayCodec(_dtype_of(annotation)),
        "tensor": TensorCodec,
        "pydantic": lambda: PydanticCodec(plain_type(annotation)),
        "text": TextCodec,
        "bytes": BytesCodec,
        "any": lambda: AnyCodec(images),
        "json": lambda: JsonCodec(annotation),
    }
    return makers[kind]()


def encode_output(output: Any, annotation: Any = None) -> tuple[str, bytes]:
    """Content type and body of *output*, which the model annotated as *annotation* (None: not at all).

    Raises PermanentError, naming what cannot be encoded.
    """
    if isinstance(output, str):
        return TEXT, _text_to_bytes(output)
    if isinstance(output, (bytes, bytearray, memoryview)):
        return BYTES, bytes(output)
    kind = kind_of(type(output))
    if kind == "image":
        return PNG, encode_png(output)
    if kind in {"array", "tensor"} and kind_of(annotation) in {"array", "tensor"}:
        return NPY, encode_npy(tensor_to_array(output) if kind == "tensor" else output)
    return JSON, encode_json(output)


def encode_input(value: Any) -> tuple[str, bytes]:
    """Content type and body to send for a Python value. Raises BadInputError for what no body can carry.

    A Path is read and its type guessed; bytes are looked at for an image's first bytes; an image becomes PNG, an
    array or tensor ``.npy``, str plain text, and all else JSON.
    """
    if isinstance(value, Path):
        return _encode_file(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return sniff_image(value if isinstance(value, bytes) else bytes(value)) or BYTES, bytes(value)
    try:
        if isinstance(value, str):
            return TEXT, _text_to_bytes(value)
        kind = kind_of(type(value))
        if kind == "image":
            return PNG, encode_png(value)
        if kind in {"array", "tensor"}:
            return NPY, encode_npy(tensor_to_array(value) if kind == "tensor" else value)
        return JSON, encode_json(value)
    except PermanentError as error:
        raise BadInputError(f"this input cannot be sent: {error}") from None


def decode_output(content_type: str | None, body: Buffer) -> Any:
    """The Python value of an answer: PIL image, JSON value, array, str, or bytes for all else.

    Raises BadInputError when the body is not what its content type says.
    """
    said = parse_content_type(content_type)
    if said.is_image:
        return decode_image(body, mode=None, max_pixels=_OUTPUT_PIXELS)
    if said.is_json:
        return decode_json(body)
    if said.is_npy:
        return decode_npy(body)
    return decode_text(said, body) if said.is_text else bytes(body)


def _encode_file(path: Path) -> tuple[str, bytes]:
    try:
        body = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}") from None
    if path.suffix == ".npy":
        return NPY, body
    return sniff_image(body) or mimetypes.guess_type(path.name)[0] or BYTES, body


def _text_to_bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise PermanentError(f"this text is not valid Unicode: {error.reason} at character {error.start}") from None


def _sounds_like_an_image(name: str) -> bool:
    return name.lower() in _IMAGE_NAMES or name.lower().endswith(("_image", "_img"))


def _dtype_of(annotation: Any) -> Any:
    """The dtype of NDArray[X] or ndarray[shape, dtype[X]]; None when it says none, or only an abstract one."""
    for argument in get_args(annotation):
        inner = argument if getattr(get_origin(argument), "__name__", "") == "dtype" else None
        if inner is not None:
            scalar = get_args(inner)[0]
            concrete = (
                isinstance(scalar, type) and not scalar.__subclasses__() and not isinstance(scalar, typing.TypeVar)
            )
            return scalar if concrete else None
        if found := _dtype_of(argument):
            return found
    return None
