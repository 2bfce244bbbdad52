"""Sees every connection that this process tries to make, and lets none go beyond this machine.

Python's own audit hook tells of each, and what it raises prevents it.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_watchers: list[list[str]] = []


def _leads_out(address: object) -> bool:
    if not isinstance(address, tuple):
        return False  # a socket of this machine
    host = str(address[0]).partition("%")[0]
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host not in ("", "localhost")
    found = getattr(found, "ipv4_mapped", None) or found
    return not (found.is_loopback or found.is_unspecified)


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"} and _leads_out(arguments[1]):
        raise AssertionError(f"a test would connect to {arguments[1]}")
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
