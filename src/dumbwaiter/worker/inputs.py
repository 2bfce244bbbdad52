"""Inputs that lie elsewhere: URLs in the place of pictures, arrays and bytes, and orders that only say where all is.

The consumer fetches them, beside the device, through the guard that every URL of a caller's goes through. Text and
plain JSON are left alone, whatever they hold: for a model that takes text a URL is a text.

An order is a bare JSON object with ``blob_url`` (the input) and ``function_event_url`` (who hears of the answer).
Source: Sabri Bolkar, "Benefits of Loosely Coupled Deep Learning Serving" (InfoQ).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from dumbwaiter import data_urls
from dumbwaiter.config import OutboundSettings
from dumbwaiter.content_types import parse_content_type
from dumbwaiter.message import KEEP, WEBHOOK, Message, is_url
from dumbwaiter.outbound.client import OutboundClient
from dumbwaiter.worker.hand import Held

FILE_KINDS = frozenset({"image", "array", "tensor", "bytes"})
"""Kinds of input that a URL may stand for."""

_MOST_ORDER_NBYTES = 64 * 1024
#: The beginning of a JSON string that is_url() may be true of: each letter in either case, or as an escape.
_URL_BEGINS = re.compile(rb'"(?:[Hh]|\\u00[46]8)(?:[Tt]|\\u00[57]4){2}(?:[Pp]|\\u00[57]0)')
_decode = msgspec.json.Decoder(str | dict[str, msgspec.Raw] | None).decode
_decode_value = msgspec.json.Decoder(str).decode


class Order(msgspec.Struct, frozen=True):
    """The article's message."""

    blob_url: str
    function_event_url: str


_decode_order = msgspec.json.Decoder(Order).decode


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where in a model's JSON a URL may stand for a file. Made from what LoadedModel.describe() says of its input.

    *files*: names of arguments; *alone*: the value itself may be one; *unwrapped*: an object with that one name stands
    for its value. *names* are those of all arguments and members that the model knows.
    """

    files: frozenset[str] = frozenset()
    alone: bool = False
    unwrapped: bool = False
    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Places:
        """Read the description; one without anything (no model yet) has no places."""
        schema = described.get("schema") or {}
        known = frozenset(schema.get("properties") or ())
        if described.get("kind") != "arguments":
            is_file = described.get("kind") in FILE_KINDS
            name = frozenset({str(described.get("name"))})
            return cls(files=name if is_file else frozenset(), alone=is_file, unwrapped=is_file, names=known | name)
        kinds: Mapping[str, str] = described.get("kinds") or {}
        first = next(iter(kinds), None)
        return cls(
            files=frozenset(name for name, kind in kinds.items() if kind in FILE_KINDS),
            alone=first is not None and kinds[first] in FILE_KINDS and set(schema.get("required") or ()) <= {first},
            names=known,
        )


def order_of(message: Message, places: Places) -> Order | None:
    """The order that *message* is, or None: one with wishes of its own is none, nor is what the model itself takes."""
    body = message.body
    if message.reply_to is not None or message.data_ref is not None or len(body) > _MOST_ORDER_NBYTES:
        return None
    if b"function_event_url" not in body or not {"blob_url", "function_event_url"}.isdisjoint(places.names):
        return None
    if KEEP in message.extensions or WEBHOOK in message.extensions:
        return None
    try:
        order = _decode_order(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return order if is_url(order.blob_url) and is_url(order.function_event_url) else None


def urls_of(content_type: str | None, body: bytes, places: Places) -> str | dict[str, str]:
    """The URL that *body* stands for, or those of its arguments by name; often none at all."""
    if not may_hold_urls(content_type, body, places):
        return {}
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}  # the model's codec says what is wrong with it
    if not isinstance(value, dict):
        return value if places.alone and value is not None and is_url(value) else {}
    found = {name: url for name, raw in value.items() if name in places.files and (url := _url(raw)) is not None}
    return next(iter(found.values())) if found and places.unwrapped and len(value) == 1 else found


def may_hold_urls(content_type: str | None, body: bytes, places: Places) -> bool:
    """A look that costs next to nothing: False is certain."""
    if not places.files or not parse_content_type(content_type).is_json:
        return False
    return _URL_BEGINS.search(body) is not None


def with_files(body: bytes, files: Mapping[str, tuple[str | None, bytes]]) -> bytes:
    """The arguments in *body* with *files* (content type and bytes, by name) in the place of their URLs."""
    arguments = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    for name, (content_type, data) in files.items():
        arguments[name] = msgspec.Raw(msgspec.json.encode(data_urls.write(content_type, data)))
    return msgspec.json.encode(arguments)


class InputFetcher:
    """Fetches inputs for one model. Its client is opened when it is first needed; close() it."""

    def __init__(self, settings: OutboundSettings) -> None:
        self._settings = settings
        self._client: OutboundClient | None = None
        self._opening = asyncio.Lock()
        self.places = Places()
        """Set when it is known what the model takes."""

    def read_order(self, held: Held) -> None:
        """Where the message is an order: what it asks for, and where its input lies."""
        order = order_of(held.request, self.places)
        if order is not None:
            held.source, held.body = order.blob_url, b""
            held.request = msgspec.structs.replace(held.request, reply_to=order.function_event_url, body=b"")

    def is_needed(self, held: Held) -> bool:
        """Whether fetch() may have anything to do."""
        return held.source is not None or may_hold_urls(held.request.content_type, held.body, self.places)

    def host_of(self, held: Held) -> str | None:
        """From which host fetch() will get something, of several the first; None when there is nothing to fetch."""
        urls = held.source or urls_of(held.request.content_type, held.body, self.places)
        if not urls:
            return None
        first = urls if isinstance(urls, str) else next(iter(urls.values()))
        try:
            return urlsplit(first).hostname or ""
        except ValueError:  # the guard says what is wrong with it
            return ""

    async def fetch(self, held: Held) -> None:
        """Put what its URLs stand for into the body of *held*. Raises ForbiddenUrlError and OutboundError."""
        urls = held.source or urls_of(held.request.content_type, held.body, self.places)
        if not urls:
            return
        client = await self._open()
        if isinstance(urls, str):
            content_type, held.body = await client.fetch(urls)
            held.request = msgspec.structs.replace(held.request, content_type=content_type)
            return
        files = {name: await client.fetch(url) for name, url in urls.items()}
        held.body = with_files(held.body, files)

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.__aexit__(None, None, None)

    async def _open(self) -> OutboundClient:
        async with self._opening:
            if self._client is None:
                client = OutboundClient(self._settings)
                await client.__aenter__()
                self._client = client
            return self._client


def _url(raw: msgspec.Raw) -> str | None:
    try:
        value = _decode_value(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return value if is_url(value) else None
