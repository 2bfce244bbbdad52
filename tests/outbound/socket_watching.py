"""Sees every connection that this process tries to make: Python's own audit hook tells of each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_watchers: list[list[str]] = []


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if _watchers and event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        address = arguments[1]
        for seen in _watchers:
            seen.append(str(address[0]) if isinstance(address, tuple) else str(address))


sys.addaudithook(_hear)


@contextmanager
def watched() -> Iterator[list[str]]:
    """The hosts that are connected to meanwhile, in order."""
    seen: list[str] = []
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers[:] = [one for one in _watchers if one is not seen]
