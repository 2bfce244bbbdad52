"""Sending responses by ASGI's own events, and seeing when the caller hangs up meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from dumbwaiter.errors import BlobError
from dumbwaiter.gateway.http.problems import Headers

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from dumbwaiter.message import Timings

HANG_UPS = "dumbwaiter.hang_ups"
"""The key of a scope's list of what to call when the caller hangs up before its response is whole. Our connections have
one; under another server a task has to wait for that.
"""
STALLED_AFTER = 30.0
"""A store that gives nothing for so many seconds is given up."""

PIECE_NBYTES = 256 * 1024
"""A body leaves in pieces of so many bytes, the next one only when the caller has taken the one before."""

_log = logging.getLogger("dumbwaiter.gateway")


class CallerWatch:
    """Sees whether the caller is still there. The request must have been read: receive() is the watch's from now on.

    *on_gone* is called when the caller hangs up. The watch ends by itself: after the response receive() says that the
    exchange is over.
    """

    __slots__ = ("_future", "_on_gone", "_task", "gone")

    def __init__(self, scope: Scope, receive: Receive, on_gone: Callable[[], object] | None = None) -> None:
        self.gone = False
        self._on_gone = on_gone
        self._future: asyncio.Future[None] | None = None
        hang_ups: list[Callable[[], object]] | None = scope.get(HANG_UPS)
        if hang_ups is None:
            self._task = asyncio.get_running_loop().create_task(self._see(receive))
        else:
            hang_ups.append(self._note)

    @property
    def future(self) -> asyncio.Future[None]:
        """Done when the caller has hung up."""
        if self._future is None:
            self._future = asyncio.get_running_loop().create_future()
            if self.gone:
                self._future.set_result(None)
        return self._future

    async def _see(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._note()

    def _note(self) -> None:
        self.gone = True
        if self._on_gone is not None:
            self._on_gone()
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


def json_headers(body: bytes) -> Headers:
    """The headers of a response whose body is the JSON *body*."""
    return [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]


async def send_whole(send: Send, status: int, headers: Headers, body: bytes | memoryview) -> None:
    """The whole response. Returns when the caller has taken all of it but what fits into a piece and the buffers of the
    connection: until then its memory is still in use.
    """
    await send({"type": "http.response.start", "status": status, "headers": headers})
    left = body
    while len(left) > PIECE_NBYTES:
        left = memoryview(left)
        await send({"type": "http.response.body", "body": left[:PIECE_NBYTES], "more_body": True})
        left = left[PIECE_NBYTES:]
    await send({"type": "http.response.body", "body": left})


async def send_chunks(send: Send, watch: CallerWatch, headers: Headers, chunks: AsyncIterator[bytes]) -> None:
    """A response (200) whose body comes in *chunks*, each sent before the next one is asked for.

    When the store fails in the middle the connection is closed, so that nobody takes the half for the whole. What
    *chunks* holds open is closed in any case.
    """
    try:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while chunk := await _next(chunks):
            # Sending to whoever has gone fails silently.
            if watch.gone:
                return
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except (BlobError, TimeoutError) as error:
        # A response that is left so makes the server close the connection.
        _log.warning("a response ends before its end: %s", error or "the blob store hangs")
        return
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()
    await send({"type": "http.response.body", "body": b""})


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    """The next of *chunks*; b"" at their end. Raises TimeoutError when the store gives nothing for too long."""
    async with asyncio.timeout(STALLED_AFTER):
        return await anext(chunks, b"")


def server_timing(timings: Timings) -> str:
    """*timings* as a Server-Timing header (W3C), in milliseconds."""
    return (
        f"queued;dur={timings.queued * 1e3:.3f}, batched;dur={timings.batched * 1e3:.3f}, "
        f'predict;dur={timings.device * 1e3:.3f}, batch;desc="{timings.batch_size}"'
    )
