"""What happens to a kept prediction, as server-sent events, for callers of any gateway.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html. Events are read from the blob store, where the
worker writes them; the result there is the last one, ``completed``. Whoever comes back says which event was the last
that it saw, and goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from dumbwaiter.asking import Polling, follow_to_end
from dumbwaiter.blobs.events import Event, is_event_id
from dumbwaiter.errors import BlobDamagedError, BlobError
from dumbwaiter.gateway.http.crowd import only_waiting
from dumbwaiter.gateway.http.problems import ProblemError
from dumbwaiter.gateway.http.sending import send_whole
from dumbwaiter.gateway.predictions.event_text import CONTENT_TYPE, cut, named, text_of
from dumbwaiter.gateway.predictions.outputs import Kept, write_object
from dumbwaiter.policies.polling import STREAM

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable

    from starlette.types import Send

    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.gateway.http.problems import Headers
    from dumbwaiter.gateway.http.sending import CallerWatch
    from dumbwaiter.gateway.http.stopping import Stopping
    from dumbwaiter.gateway.predictions.expiry import Expiry
    from dumbwaiter.gateway.predictions.results import Results
    from dumbwaiter.gateway.predictions.segments import Segments
    from dumbwaiter.gateway.predictions.telling import Telling
    from dumbwaiter.message import Message

HEARTBEAT_EVERY = 15.0
"""Proxies between may close what is quiet for longer than they like."""
RETRY_MS = 1000
"""After so many milliseconds a browser connects again."""
COMPLETED = "completed"
"""Name and id of the last event."""


class _LeftError(Exception):
    """Whoever followed has gone, or is let go."""


class EventStreams:
    """Streams the events of kept predictions; *stopping* ends them all, and callers come back elsewhere."""

    def __init__(
        self, segments: Segments, results: Results, expiry: Expiry, stopping: Stopping, telling: Telling
    ) -> None:
        self._segments = segments
        self._results = results
        self._expiry = expiry
        self._stopping = stopping
        self._telling = telling

    async def send(
        self, exchange: Exchange, id_: str, model: str, kept: Kept, *, after: str | None, headers: Headers
    ) -> None:
        """Send what happens to *id_* behind the event *after* (None: all of it) until it is completed or the caller
        hangs up.

        Without an end of its own it ends when its result is damaged or too old to be kept: whoever comes back is told;
        and when others need the connection.
        """
        if after == COMPLETED:
            # A browser comes back after every end; this tells it not to.
            await send_whole(exchange.send, 204, headers, b"")
            return
        head = [(b"content-type", CONTENT_TYPE), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await exchange.send({"type": "http.response.start", "status": 200, "headers": [*head, *headers]})
        if exchange.scope["method"] == "HEAD":
            await exchange.send({"type": "http.response.body", "body": b""})
            return
        with only_waiting(exchange.scope) as give_way:
            stream = _Stream(exchange.send, exchange.watch(), self._stopping.future, give_way)
            with contextlib.suppress(_LeftError):
                answer = await self._follow(stream, id_, kept, after if is_event_id(after or "") else None)
                if answer is not None:
                    await self._complete(stream, id_, answer, model, kept)
        if not stream.watch.gone:
            await exchange.send({"type": "http.response.body", "body": b""})

    async def _follow(self, stream: _Stream, id_: str, kept: Kept, after: str | None) -> Message | None:
        """The result, once all that was before it is sent; None when the caller or this gateway goes before, or when
        there never will be one to send.
        """
        await stream.say((b"retry: %d\n\n" % RETRY_MS,))
        following: AsyncGenerator[Event | Message | BlobDamagedError | None] = follow_to_end(
            self._segments.store,
            id_,
            lambda: self._find(id_),
            Polling(STREAM),
            after=after,
            wakes=stream.ends,
            # What the store does not give now it may give later; a caller who comes back goes on from here.
            endures=(BlobError,),
            opened=partial(self._opened, stream),
        )
        async with contextlib.aclosing(following) as told:
            async for one in told:
                if isinstance(one, Event):
                    # The next is read when this one was taken.
                    await stream.say(text_of(one))
                    if stream.is_over():
                        return None
                elif one is not None:
                    return None if isinstance(one, BlobDamagedError) else one
                elif stream.is_over() or (await stream.keep_alive() and await self._is_over(id_, kept)):
                    return None
        return None

    @contextlib.asynccontextmanager
    async def _opened(self, stream: _Stream, key: str) -> AsyncIterator[list[Event]]:
        """The events of the segment *key*, once there is room for them."""
        with self._segments.share(key) as loading:
            while not loading.done():
                await stream.wait_for(loading)
            yield loading.result()

    async def _complete(self, stream: _Stream, id_: str, answer: Message, model: str, kept: Kept) -> None:
        """The last event. Where the result cannot be read the stream ends without, and whoever comes back is told."""
        write = partial(write_object, id_=id_, model=model, kept=kept)
        with self._telling.hold() as hold, contextlib.suppress(BlobError):
            while True:
                try:
                    body = (await self._telling.written(hold, id_, answer, write))[1]
                except ProblemError:  # no room for it now
                    await stream.wait_for(None, at_most=STREAM.last)
                else:
                    await stream.say(named(COMPLETED, COMPLETED, cut(body.strip())))
                    return

    async def _find(self, id_: str) -> Message | BlobDamagedError | None:
        """The result; the error where it never can be read, which is an end too."""
        try:
            return await self._results.find(id_)
        except BlobDamagedError as error:
            return error

    async def _is_over(self, id_: str, kept: Kept) -> bool:
        try:
            return await self._expiry.is_over(id_, kept)
        except BlobError:
            return False


class _Stream:
    """What is sent to one caller, until that has gone or another one of *ends* is done."""

    def __init__(self, send: Send, watch: CallerWatch, *ends: asyncio.Future[None]) -> None:
        self.watch = watch
        self.ends = (watch.future, *ends)
        self._send = send
        self._said_at = time.monotonic()

    def is_over(self) -> bool:
        """Whether nothing more is to be sent."""
        return any(end.done() for end in self.ends)

    async def wait_for(self, awaited: asyncio.Future[Any] | None, *, at_most: float | None = None) -> None:
        """Wait until *awaited* is done, or for a while. Raises _LeftError when it is over."""
        waited = self.ends if awaited is None else (awaited, *self.ends)
        await asyncio.wait(waited, timeout=at_most or HEARTBEAT_EVERY, return_when=asyncio.FIRST_COMPLETED)
        if self.is_over():
            raise _LeftError
        await self.keep_alive()

    async def keep_alive(self) -> bool:
        """Say something if nothing was said for long; whether that was so."""
        if time.monotonic() - self._said_at <= HEARTBEAT_EVERY:
            return False
        await self.say((b": still there\n\n",))
        return True

    async def say(self, text: Iterable[bytes]) -> None:
        """Send *text*, piece by piece; a slow reader makes this wait. Raises _LeftError when the caller has gone."""
        self._said_at = time.monotonic()
        for piece in text:
            if self.watch.gone:
                raise _LeftError
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
