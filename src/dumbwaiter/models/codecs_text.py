"""Text, raw bytes, and inputs of no declared type: there the content type, or the body itself, decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from dumbwaiter.content_types import BYTES, JSON, ContentType, sniff_image
from dumbwaiter.errors import BadInputError
from dumbwaiter.models.codecs_array import decode_npy, is_npy
from dumbwaiter.models.codecs_json import decode_json
from dumbwaiter.models.input_codec import URL_SCHEMA, Buffer, InputCodec, from_data_url, name_of, one_line

if TYPE_CHECKING:
    from dumbwaiter.models.codecs_image import ImageCodec

#: Python's codecs include compressors and worse; these are the ones that HTTP clients send.
_CHARSETS = frozenset(
    {"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "iso-8859-15", "windows-1252", "utf-16", "utf-16le"}
)


class TextCodec(InputCodec):
    """Bodies as str: plain text, or a JSON string."""

    kind = "text"
    cheap = True
    content_types = ("text/plain", JSON)

    def from_body(self, content_type: ContentType, body: Buffer) -> Any:
        if content_type.is_json:
            return self.from_json(decode_json(body))
        if content_type.is_text or content_type.opaque:
            return decode_text(content_type, body)
        raise BadInputError(f"expected text, got {one_line(content_type.essence, 60)}")

    def from_json(self, value: Any) -> Any:
        if not isinstance(value, str):
            raise BadInputError(f"expected text, got {name_of(value)}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


class BytesCodec(InputCodec):
    """Bodies as bytes, whatever their type."""

    kind = "bytes"
    cheap = True
    content_types = (BYTES, "*/*")

    def from_body(self, content_type: ContentType, body: Buffer) -> Any:  # noqa: ARG002 - bytes are bytes
        return bytes(body)

    def from_json(self, value: Any) -> Any:
        return from_data_url("bytes", value)[1]

    def schema(self) -> dict[str, Any]:
        return {**URL_SCHEMA}


class AnyCodec(InputCodec):
    """Bodies as what their content type says: image, JSON value, array, text; what says nothing is looked at."""

    kind = "any"
    cheap = False
    content_types = ("image/*", JSON, "text/*", "application/x-npy", BYTES)

    def __init__(self, images: ImageCodec) -> None:
        self._images = images

    def from_body(self, content_type: ContentType, body: Buffer) -> Any:
        if content_type.is_image:
            return self._images.from_body(content_type, body)
        if content_type.is_json:
            return decode_json(body)
        if content_type.is_npy:
            return decode_npy(body)
        if content_type.is_text:
            return decode_text(content_type, body)
        return self._sniffed(content_type, body) if content_type.opaque else bytes(body)

    def from_json(self, value: Any) -> Any:
        return value

    def schema(self) -> dict[str, Any]:
        return {}

    def _sniffed(self, content_type: ContentType, body: Buffer) -> Any:
        if sniff_image(body):
            return self._images.from_body(content_type, body)
        if is_npy(body):
            return decode_npy(body)
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        except RecursionError:
            raise BadInputError("the JSON body is nested too deeply") from None
        try:
            return str(body, "utf-8")
        except UnicodeDecodeError:
            return bytes(body)


def decode_text(content_type: ContentType, body: Buffer) -> str:
    """*body* in its charset (UTF-8 when unsaid). Raises BadInputError."""
    if content_type.charset not in _CHARSETS:
        raise BadInputError(f"unknown charset {one_line(content_type.charset, 40)!r}; send UTF-8")
    try:
        return str(body, content_type.charset).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise BadInputError(f"the text is not valid {content_type.charset} at byte {error.start}") from None
