"""What happens to a kept prediction, as server-sent events, for callers of any gateway.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html. Events are read from the blob store, where the
worker writes them; the result there is the last one, ``completed``. Whoever comes back says which event was the last
that it saw, and goes on from there.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from dumbwaiter.asking import Polling, follow_to_end
from dumbwaiter.blobs.events import Event, is_event_id
from dumbwaiter.errors import BlobDamagedError, BlobError
from dumbwaiter.gateway.http.sending import send_whole
from dumbwaiter.gateway.predictions.outputs import Kept, write_object
from dumbwaiter.policies.polling import STREAM
from dumbwaiter.prediction import output_as_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Send

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.gateway.http.problems import Headers
    from dumbwaiter.gateway.http.sending import CallerWatch
    from dumbwaiter.gateway.http.stopping import Stopping
    from dumbwaiter.gateway.predictions.expiry import Expiry
    from dumbwaiter.gateway.predictions.results import Results
    from dumbwaiter.message import Message

HEARTBEAT_EVERY = 15.0
"""Proxies between may close what is quiet for longer than they like."""
RETRY_MS = 1000
"""After so many milliseconds a browser connects again."""
COMPLETED = "completed"
"""Name and id of the last event."""

CONTENT_TYPE = b"text/event-stream; charset=utf-8"


class EventStreams:
    """Streams the events of kept predictions; *stopping* ends them all, and callers come back elsewhere."""

    def __init__(self, store: BlobStore, results: Results, expiry: Expiry, stopping: Stopping) -> None:
        self._store = store
        self._results = results
        self._expiry = expiry
        self._stopping = stopping

    async def send(
        self, exchange: Exchange, id_: str, model: str, kept: Kept, *, after: str | None, headers: Headers
    ) -> None:
        """Send what happens to *id_* behind the event *after* (None: all of it) until it is completed or the caller
        hangs up.

        Without an end of its own it ends when its result is damaged or too old to be kept: whoever comes back is told.
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
        stream = _Stream(exchange.send, exchange.watch())
        answer = await self._follow(stream, id_, kept, after if is_event_id(after or "") else None)
        if stream.watch.gone:
            return
        if answer is not None:
            body = write_object(answer, id_=id_, model=model, kept=kept)[1]
            await stream.say(_event(COMPLETED, COMPLETED, body))
        await exchange.send({"type": "http.response.body", "body": b""})

    async def _follow(self, stream: _Stream, id_: str, kept: Kept, after: str | None) -> Message | None:
        """The result, once all that was before it is sent; None when the caller or this gateway goes before, or when
        there never will be one to send.
        """
        await stream.say(b"retry: %d\n\n" % RETRY_MS)
        following: AsyncGenerator[Event | Message | BlobDamagedError | None] = follow_to_end(
            self._store,
            id_,
            lambda: self._find(id_),
            Polling(STREAM),
            after=after,
            wakes=(stream.watch.future, self._stopping.future),
            # What the store does not give now it may give later; a caller who comes back goes on from here.
            endures=(BlobError,),
        )
        async with contextlib.aclosing(following) as told:
            async for one in told:
                if stream.watch.gone:
                    return None
                if isinstance(one, Event):
                    # The next is read when this one was taken.
                    await stream.say(event_text(one))
                elif one is not None:
                    return None if isinstance(one, BlobDamagedError) else one
                elif self._stopping.has_come or (await stream.keep_alive() and await self._is_over(id_, kept)):
                    return None
        return None

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
    """What is sent to one caller."""

    def __init__(self, send: Send, watch: CallerWatch) -> None:
        self.watch = watch
        self._send = send
        self._said_at = time.monotonic()

    async def keep_alive(self) -> bool:
        """Say something if nothing was said for long; whether that was so."""
        if time.monotonic() - self._said_at <= HEARTBEAT_EVERY:
            return False
        await self.say(b": still there\n\n")
        return True

    async def say(self, text: bytes) -> None:
        """Send *text*; a slow reader makes this wait."""
        self._said_at = time.monotonic()
        await self._send({"type": "http.response.body", "body": text, "more_body": True})


def event_text(event: Event) -> bytes:
    """*event* as a reader of server-sent events takes it; its data is a JSON value."""
    return _event(event.event, event.id, output_as_json(event.content_type, event.data) or b"null")


def _event(name: str, id_: str, data: bytes) -> bytes:
    # Line breaks between JSON's tokens are white space; within its strings there are none.
    line = data.strip().replace(b"\r", b" ").replace(b"\n", b" ")
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (id_.encode(), name.encode(), line)
