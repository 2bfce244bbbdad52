"""Requests that ask for another protocol (``Upgrade: h2c`` from curl --http2 and Java's client, WebSockets).

A server may pass over the wish and serve the request as it stands, body and all (RFC 9110, section 7.8). httptools
cannot: after such a head it takes whatever follows for the other protocol, and a body would be read as a request. So
the head is written anew without the wish, for a fresh parser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CONNECTION, _UPGRADE = b"connection", b"upgrade"


def head_without_upgrade(method: bytes, target: bytes, version: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The head of a request with *headers* (their names in lower case), without its wish for another protocol."""
    lines = [b" ".join((method, target, b"HTTP/" + version.encode()))]
    lines += [name + b": " + value for name, value in _kept(headers)]
    return b"\r\n".join([*lines, b"", b""])


def parser_for(protocol: object) -> Any:
    """A fresh parser that calls *protocol*, as lenient as uvicorn's."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


def _kept(headers: Sequence[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    for name, value in headers:
        if name == _CONNECTION:
            wishes = [wish.strip() for wish in value.split(b",")]
            yield name, b", ".join(wish for wish in wishes if wish.lower() != _UPGRADE)
        elif name != _UPGRADE:
            yield name, value
