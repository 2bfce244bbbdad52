"""The consumer's side of progress: a lane per message takes what its runner reports to the blob store.

While one write of a lane is under way its next events gather, and go together into the next one. What is printed is
dropped, oldest first, where too much of it waits. Chunks of an output are never dropped: where too many bytes of them
wait in a lane, nothing more is read from the runner until they are written, which holds up the one model that makes
them. What the store refuses is written again before anything else is, so there is no hole in what is told. A store that
refuses for WRITE_TIMEOUT, or does not answer within that, ends the lane, so this is bounded too: all events from there
on are lost. The answer never is, for it holds the whole output.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import msgspec

from dumbwaiter.blobs.events import Event, append, event_id, new_attempt
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.errors import BlobError
from dumbwaiter.message import WEBHOOK, Message
from dumbwaiter.tasks import end
from dumbwaiter.worker.hand import Held
from dumbwaiter.worker.notifying import Notifier
from dumbwaiter.worker.pipe import Report

WRITE_TIMEOUT, RETRY_EVERY = 10.0, 0.5
MOST_CHUNK_NBYTES = 8 * 1024 * 1024
MOST_LOG_NBYTES = 64 * 1024
_LINGER, _WEBHOOK_LINGER = 0.05, 0.5
_log = logging.getLogger(__name__)


class Lane:
    """The events of one attempt at one message, in order."""

    def __init__(self, store: BlobStore, notifier: Notifier, request: Message, delivery_count: int) -> None:
        self._store = store
        self._notifier = notifier
        self._request = request
        self._attempt = new_attempt(delivery_count, time.time())
        self._sequence = 0
        self._waiting: list[Event] = []
        self._log_nbytes = self._chunk_nbytes = 0
        self._changed = asyncio.Event()
        self._flushing = asyncio.Event()
        self._lost = False
        self._linger = _WEBHOOK_LINGER if WEBHOOK in request.extensions else _LINGER
        self.writing: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether so many bytes of chunks wait that no more should be taken in."""
        return self._chunk_nbytes > MOST_CHUNK_NBYTES

    def add(self, report: Report, data: bytes) -> None:
        """Take one event in, and see that it is written."""
        if self._lost:
            return
        if report.event == "start":
            event = Event(id="", event="start", data=b"{}")
        else:
            event = Event(id="", event=report.event, data=data, content_type=report.content_type)
        self._waiting.append(event)
        if event.event == "output":
            self._chunk_nbytes += len(data)
        elif event.event == "log":
            self._log_nbytes += len(data)
            self._drop_oldest_logs()
        if self.writing is None or self.writing.done():
            self.writing = asyncio.create_task(self._write_on())

    async def room(self) -> None:
        """Wait until it is not full."""
        while self.is_full:
            self._changed.clear()
            await self._changed.wait()

    async def flush(self) -> None:
        """Wait until all is written, or lost."""
        self._flushing.set()
        if self.writing is not None:
            await asyncio.wait({self.writing})

    async def _write_on(self) -> None:
        while self._waiting:
            events, self._waiting = [self._named(event) for event in self._waiting], []
            self._log_nbytes = 0
            is_written = await self._write(events)
            self._chunk_nbytes = sum(len(event.data) for event in self._waiting if event.event == "output")
            self._changed.set()
            if is_written:
                await self._notify(events)
            await self._pause(self._linger)

    def _named(self, event: Event) -> Event:
        # Only now, so that what was dropped while it waited leaves no gap: readers take one for a hole.
        self._sequence += 1
        return msgspec.structs.replace(event, id=event_id(self._attempt, self._sequence))

    async def _pause(self, seconds: float) -> None:
        """Wait, but for nothing once the answer is waiting for the last events."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._flushing.wait()

    async def _write(self, events: list[Event]) -> bool:
        """Whether *events* are written; otherwise the lane has ended."""
        give_up_at = time.monotonic() + WRITE_TIMEOUT
        is_last = False
        while True:
            try:
                async with asyncio.timeout(WRITE_TIMEOUT):
                    await append(self._store, self._request.id, events)
            except BlobError as error:
                if is_last:
                    self._give_up(str(error))
                    return False
                _log.warning("progress of %s is late: %s", self._request.id, error)
            except TimeoutError:
                self._give_up("no answer from the blob store")
                return False
            except Exception as error:  # a fault of ours must not keep the runner or the answer waiting
                self._give_up(repr(error))
                return False
            else:
                return True
            await self._pause(RETRY_EVERY)
            is_last = self._flushing.is_set() or time.monotonic() > give_up_at

    def _give_up(self, why: str) -> None:
        _log.error("all further progress of %s is lost: %s", self._request.id, why)
        self._lost, self._waiting = True, []

    async def _notify(self, events: list[Event]) -> None:
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                await self._notifier.progressed(self._request, events)
        except TimeoutError:
            _log.warning("the webhook of %s is not told of its progress: the broker is slow", self._request.id)

    def _drop_oldest_logs(self) -> None:
        while self._log_nbytes > MOST_LOG_NBYTES:
            place = next(place for place, event in enumerate(self._waiting) if event.event == "log")
            self._log_nbytes -= len(self._waiting.pop(place).data)


class ProgressWriter:
    """Opens lanes as reports come, and ends their writing when the worker ends."""

    def __init__(self, store: BlobStore, notifier: Notifier) -> None:
        self._store = store
        self._notifier = notifier
        self._writing: set[asyncio.Task[None]] = set()

    def note(self, held: Held, report: Report, data: bytes) -> Lane | None:
        """Take *report* into the lane of *held*: that lane, or None where nobody follows any more."""
        if not held.kept or held.lost or held.stored is not None:
            return None
        lane = held.lane
        if not isinstance(lane, Lane):
            held.lane = lane = Lane(self._store, self._notifier, held.request, held.delivery.delivery_count)
        lane.add(report, data)
        task = lane.writing
        if task is not None and task not in self._writing:
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)
        return lane

    async def close(self) -> None:
        """Write nothing more."""
        await end(self._writing)
