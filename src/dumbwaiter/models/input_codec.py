"""What every input codec does. One file per family implements it; codecs.py chooses by annotation."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from dumbwaiter import data_urls
from dumbwaiter.content_types import ContentType
from dumbwaiter.errors import BadInputError

Buffer = bytes | memoryview

URL_SCHEMA = {"type": "string", "format": "uri", "description": "a data: or https: URL"}
"""How JSON carries files: in a URL, or as one that a worker fetches."""


class InputCodec(ABC):
    """Turns a body into a model's input. Stateless after construction: called from several threads at once."""

    kind: ClassVar[str]
    """``image``, ``array``, ``tensor``, ``text``, ``bytes``, ``json`` or ``any``."""
    cheap: ClassVar[bool]
    """Decoding costs microseconds."""
    content_types: ClassVar[tuple[str, ...]]
    """What is accepted, for people and for describe()."""

    @abstractmethod
    def from_body(self, content_type: ContentType, body: Buffer) -> Any:
        """Decode a body that is not empty. Raises BadInputError, saying what was expected and what came."""

    @abstractmethod
    def from_json(self, value: Any) -> Any:
        """Turn a JSON value (one of several parameters) into the input. Raises BadInputError."""

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """JSON Schema of the JSON form."""


def without_colours(text: str) -> str:
    """*text* without the escape sequences that some libraries colour their errors with (ECMA-48's CSI)."""
    return re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", text)


def one_line(text: object, limit: int = 200) -> str:
    """*text* for an error message: white space collapsed, no colours, at most *limit* characters."""
    line = " ".join(without_colours(str(text)).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def from_data_url(expected: str, value: Any) -> tuple[str | None, bytes]:
    """Content type (None: nobody said) and bytes of a data URL, the way in which JSON carries files.

    Raises BadInputError for all else, and for one that is empty.
    """
    if not isinstance(value, str) or not data_urls.is_data_url(value):
        ways = "as its own body, or in JSON as a data: or https: URL"
        raise BadInputError(f"expected {expected}, {ways}; got {name_of(value)}")
    try:
        return data_urls.read(value)
    except BadInputError as error:
        raise BadInputError(f"expected {expected}; got {error}") from None


def name_of(value: Any) -> str:
    """What a JSON value is, in JSON's own words, shortened: ``the string "abc"``, ``an object``."""
    names = {dict: "a JSON object", list: "a JSON array", type(None): "JSON null", bool: "a JSON boolean"}
    if isinstance(value, str):
        return f"the JSON string {one_line(value, 40)!r}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "a JSON number"
    return names.get(type(value), f"a {type(value).__name__}")
