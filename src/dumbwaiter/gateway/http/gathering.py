"""Writing to a connection in as few system calls as there are turns of the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

LARGE = 16 * 1024
"""A piece of so many bytes is worth a system call of its own."""


class Gathering:
    """A transport whose close() is *close*, given the transport within. It counts the bytes *written*.

    *is_over*: whether the connection is as good as closed, whatever the transport says.

    What is written in one turn of the event loop leaves in one piece: uvicorn writes the head of a response and its
    body one after the other, and a system call for each would be the most expensive part of a small answer.
    """

    __slots__ = ("_call_soon", "_close", "_gathered", "_is_over", "_transport", "written")

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        close: Callable[[asyncio.Transport], object],
        is_over: Callable[[], bool],
    ) -> None:
        self._transport = transport
        self._close = close
        self._is_over = is_over
        self._call_soon = asyncio.get_running_loop().call_soon
        self._gathered: list[bytes] = []
        self.written = 0

    def write(self, data: bytes) -> None:
        self.written += len(data)
        if not self._gathered:
            self._call_soon(self._flush)
        self._gathered.append(data)
        if len(data) >= LARGE:
            self._flush()  # so that flow control sees it at once

    def _flush(self) -> None:
        if self._gathered:
            data = b"".join(self._gathered) if len(self._gathered) > 1 else self._gathered[0]
            self._gathered.clear()
            self._transport.write(data)

    def unread(self) -> int:
        """How many bytes wait here because the caller does not take them."""
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        self._gathered.clear()
        self._transport.abort()

    def close(self) -> None:
        self._flush()
        self._close(self._transport)

    def is_closing(self) -> bool:
        return self._is_over() or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
