"""The runner's intake: inputs come off the pipe, are decoded beside the device and wait here for their batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dumbwaiter.models.contract import LoadedModel
from dumbwaiter.policies.batching import Waiting
from dumbwaiter.worker.pipe import Drain, Drop, Item, Predict, RunnerEnd, split
from dumbwaiter.worker.recorder import FlightRecorder, State

OnBadInput = Callable[[Item, BaseException], None]
OnReturned = Callable[[list[int]], None]


class Decoded:
    """One input, ready to run."""

    __slots__ = ("item", "value", "waiting")

    def __init__(self, item: Item, value: Any) -> None:
        self.item = item
        self.value = value
        self.waiting = Waiting(deadline=item.deadline, alone=item.alone)


class Intake:
    """Reader thread and decode threads; the main thread takes from *ready* while holding *changed*."""

    def __init__(
        self,
        pipe: RunnerEnd,
        model: LoadedModel,
        recorder: FlightRecorder,
        *,
        threads: int,
        on_bad_input: OnBadInput,
        on_returned: OnReturned,
    ) -> None:
        self._pipe = pipe
        self._model = model
        self._recorder = recorder
        self._on_bad_input = on_bad_input
        self._on_returned = on_returned
        self._pool = None if model.cheap_decode else ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._threads = threads
        self._dropped: set[int] = set()
        self.changed = threading.Condition()
        self.ready: deque[Decoded] = deque()
        self.decoding = 0
        self._draining = False
        self.ended = False
        self.fault: Exception | None = None
        self.arrival_gap: float | None = None
        self._decode_seconds = 0.0
        self._last_arrival = time.monotonic()

    @property
    def decode_gap(self) -> float:
        """Expected seconds until the next input now being decoded is ready."""
        return self._decode_seconds / max(1, min(self._threads, self.decoding))

    def start(self) -> None:
        """Begin to read the pipe."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()

    def _read(self) -> None:
        try:
            self._heed()
        except (EOFError, OSError):
            pass  # the consumer is gone
        except Exception as error:
            # A fault of ours. A runner that is deaf must end, not look alive.
            self.fault = error
        with self.changed:
            self.ended = True
            self.changed.notify()

    def _heed(self) -> None:
        while True:
            meta, bodies = self._pipe.receive()
            if isinstance(meta, Predict):
                self._accept(meta.items, bodies)
            elif isinstance(meta, Drop):
                self._drop(set(meta.slots))
            elif isinstance(meta, Drain):
                self._drain()

    def _accept(self, items: list[Item], bodies: memoryview) -> None:
        self._note_arrivals(len(items))
        pieces = list(zip(items, split([item.nbytes for item in items], bodies), strict=True))
        with self.changed:
            self._dropped.difference_update(item.slot for item in items)  # the slot has a new owner
            self.decoding += len(items)
        if self._pool is not None:
            for item, body in pieces:
                self._pool.submit(self._decode_one, item, body)
        else:
            self._hand_over(len(pieces), [done for done in (self._decode(*piece) for piece in pieces) if done])

    def _decode_one(self, item: Item, body: memoryview) -> None:
        started = time.monotonic()
        done = self._decode(item, body)
        self._decode_seconds += 0.1 * (time.monotonic() - started - self._decode_seconds)
        self._hand_over(1, [done] if done else [])

    def _decode(self, item: Item, body: memoryview) -> Decoded | None:
        self._recorder.mark(item.slot, State.DECODING, time.monotonic())
        try:
            value = self._model.decode(item.content_type, body)
        except Exception as error:
            self._recorder.mark(item.slot, State.IDLE, 0.0)
            self._on_bad_input(item, error)
            return None
        self._recorder.mark(item.slot, State.IDLE, 0.0)
        return Decoded(item, value)

    def _hand_over(self, count: int, decoded: list[Decoded]) -> None:
        with self.changed:
            self.decoding -= count
            dropped = [one.item.slot for one in decoded if one.item.slot in self._dropped]
            self.ready.extend(one for one in decoded if one.item.slot not in self._dropped)
            self._dropped.difference_update(dropped)
            if dropped:
                self._on_returned(dropped)
            if self._draining:
                self._return_everything()
            self.changed.notify()

    def _drain(self) -> None:
        with self.changed:
            self._draining = True
            self._return_everything()
            self.changed.notify()

    def _return_everything(self) -> None:
        """Say at once what has not started, also while the device is busy with a batch."""
        slots = [one.item.slot for one in self.ready]
        self.ready.clear()
        self._on_returned(slots)

    def _drop(self, slots: set[int]) -> None:
        """Return those that wait; remember those still being decoded; what runs or is done answers by itself."""
        with self.changed:
            waiting = [one.item.slot for one in self.ready if one.item.slot in slots]
            kept = [one for one in self.ready if one.item.slot not in slots]
            self.ready.clear()
            self.ready.extend(kept)
            self._dropped |= slots.difference(waiting)
            self._on_returned(waiting)

    def _note_arrivals(self, count: int) -> None:
        now = time.monotonic()
        gap = (now - self._last_arrival) / count
        self._last_arrival = now
        self.arrival_gap = gap if self.arrival_gap is None else self.arrival_gap + 0.2 * (gap - self.arrival_gap)
