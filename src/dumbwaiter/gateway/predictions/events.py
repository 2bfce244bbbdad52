"""What happens to a kept prediction, as server-sent events, for callers of any gateway.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html. Events are read from the blob store, where the
worker writes them; the result there is the last one, ``completed``. Whoever comes back says which event was the last
that it saw, and goes on from there.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from dumbwaiter.blobs.events import Event, follow, is_event_id
from dumbwaiter.errors import BlobError
from dumbwaiter.gateway.http.sending import send_whole
from dumbwaiter.gateway.predictions.outputs import Kept, write_object
from dumbwaiter.prediction import output_as_json

if TYPE_CHECKING:
    from starlette.types import Send

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.gateway.http.problems import Headers
    from dumbwaiter.gateway.http.sending import CallerWatch
    from dumbwaiter.gateway.http.stopping import Stopping
    from dumbwaiter.gateway.predictions.results import Results
    from dumbwaiter.message import Message

FIRST_POLL, LAST_POLL = 0.025, 1.0
"""Seconds between two looks for new events; each pause without any is half as long again as the one before."""
HEARTBEAT_EVERY = 15.0
"""Proxies between may close what is quiet for longer than they like."""
RETRY_MS = 1000
"""After so many milliseconds a browser connects again."""
COMPLETED = "completed"
"""Name and id of the last event."""

CONTENT_TYPE = b"text/event-stream; charset=utf-8"


class EventStreams:
    """Streams the events of kept predictions; *stopping* ends them all, and callers come back elsewhere."""

    def __init__(self, store: BlobStore, results: Results, stopping: Stopping) -> None:
        self._store = store
        self._results = results
        self._stopping = stopping

    async def send(
        self, exchange: Exchange, id_: str, model: str, kept: Kept, *, after: str | None, headers: Headers
    ) -> None:
        """Send what happens to *id_* behind the event *after* (None: all of it) until it is completed or the caller
        hangs up.
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
        stream = _Stream(self._store, exchange.send, exchange.watch(), id_, after if is_event_id(after or "") else None)
        answer = await self._follow(stream, id_)
        if stream.watch.gone:
            return
        if answer is not None:
            body = write_object(answer, id_=id_, model=model, kept=kept)[1]
            await stream.say(_event(COMPLETED, COMPLETED, body))
        await exchange.send({"type": "http.response.body", "body": b""})

    async def _follow(self, stream: _Stream, id_: str) -> Message | None:
        """The result, once all that was before it is sent; None when the caller or this gateway goes before."""
        pause = FIRST_POLL
        await stream.say(b"retry: %d\n\n" % RETRY_MS)
        while not stream.watch.gone:
            try:
                # Events are written before the result: those that are read after it was seen are all there are.
                answer = await self._results.find(id_)
                any_came = await stream.pass_on()
            except BlobError:
                # What the store does not give now it may give later; a caller who comes back goes on from here.
                answer, any_came = None, False
            if answer is not None:
                return answer
            if self._stopping.has_come:
                return None
            pause = FIRST_POLL if any_came else min(1.5 * pause, LAST_POLL)
            await stream.keep_alive()
            await asyncio.wait(
                {stream.watch.future, self._stopping.future}, timeout=pause, return_when=asyncio.FIRST_COMPLETED
            )
        return None


class _Stream:
    """What was sent to one caller so far."""

    def __init__(self, store: BlobStore, send: Send, watch: CallerWatch, id_: str, seen: str | None) -> None:
        self.watch = watch
        self._store = store
        self._send = send
        self._id = id_
        self._seen = seen
        self._said_at = time.monotonic()

    async def pass_on(self) -> bool:
        """Send the events that are new; whether there were any. The next is read when the one before was taken."""
        any_came = False
        async for event in follow(self._store, self._id, self._seen):
            if self.watch.gone:
                break
            await self.say(event_text(event))
            self._seen = event.id
            any_came = True
        return any_came

    async def keep_alive(self) -> None:
        """Say something if nothing was said for long."""
        if time.monotonic() - self._said_at > HEARTBEAT_EVERY:
            await self.say(b": still there\n\n")

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


async def has_started(store: BlobStore, id_: str) -> bool:
    """Whether a worker has begun to run the prediction *id_*."""
    async for _ in follow(store, id_):
        return True
    return False
