"""The runner's intake: inputs come off the pipe, are decoded beside the device and wait here for their batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from dumbwaiter.devices.admission import What
from dumbwaiter.models.contract import LoadedModel
from dumbwaiter.policies.batching import Waiting, decoders_wanted
from dumbwaiter.worker.interrupting import Interrupter
from dumbwaiter.worker.pipe import Cancel, Drain, Drop, Item, Move, Predict, RunnerEnd, split
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
    """Reader thread and decode threads; the main thread looks at *ready* and takes from it while holding *changed*.

    Of the decode threads one works ahead, and the others only help while the device would have to wait: else they
    would take the processor from the model. *target* is the batch size to aim at, *most* what the consumer allows.
    *orders* are the Moves that the main thread has to do. *interrupter* ends what runs when it is cancelled.
    """

    def __init__(
        self,
        pipe: RunnerEnd,
        model: LoadedModel,
        recorder: FlightRecorder,
        *,
        threads: int,
        on_bad_input: OnBadInput,
        on_returned: OnReturned,
        interrupter: Interrupter | None = None,
    ) -> None:
        self._pipe = pipe
        self._interrupter = interrupter or Interrupter()
        self._model = model
        self._recorder = recorder
        self._on_bad_input = on_bad_input
        self._on_returned = on_returned
        self._threads = 0 if model.cheap_decode else threads
        lock = threading.RLock()
        self.changed = threading.Condition(lock)
        self._work = threading.Condition(lock)
        self._undecoded: deque[tuple[Item, memoryview]] = deque()
        self._dropped: set[int] = set()
        self.ready: deque[Decoded] = deque()
        self.orders: deque[What] = deque()
        self.target = 1
        self.most: int | None = None
        self.decoding = 0
        self._draining = False
        self.ended = False
        self.fault: Exception | None = None
        self.arrival_gap: float | None = None
        self.decode_seconds = 0.0
        """What one thread takes to decode an input: a mean that follows the newest ones."""
        self._last_arrival = time.monotonic()

    @property
    def decode_gap(self) -> float:
        """Expected seconds until the next input now being decoded is ready."""
        return self.decode_seconds / max(1, min(self._threads, self.decoding))

    def start(self) -> None:
        """Begin to read the pipe, and to decode."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        for place in range(self._threads):
            threading.Thread(target=self._decode_on, args=(place,), name=f"decode-{place}", daemon=True).start()

    def take(self, places: Sequence[int]) -> list[Decoded]:
        """Remove and return the inputs at *places* of *ready*. Call it while holding *changed*."""
        if list(places) == list(range(len(places))):
            taken = [self.ready.popleft() for _ in places]
        else:
            taken = [self.ready[place] for place in places]
            chosen = set(places)
            kept = [one for place, one in enumerate(self.ready) if place not in chosen]
            self.ready.clear()
            self.ready.extend(kept)
        if self._undecoded:
            self._work.notify_all()
        return taken

    # --- the reader thread ---

    def _read(self) -> None:
        try:
            self._heed()
        except EOFError:
            self.end(None)  # the consumer is gone
        except Exception as error:
            self.end(error)

    def end(self, fault: Exception | None) -> None:
        """Take nothing more. A runner that is deaf or dumb must end, not look alive: *fault* is raised by its run()."""
        with self.changed:
            self.fault = self.fault or fault
            self.ended = True
            self.changed.notify()

    def _heed(self) -> None:
        while True:
            meta, bodies = self._pipe.receive()
            if isinstance(meta, Predict):
                self._accept(meta.items, bodies, meta.most)
            elif isinstance(meta, Drop):
                self._drop(set(meta.slots))
            elif isinstance(meta, Cancel):
                self._interrupter.cancel(meta.slots)  # first: what is taken off the pile meanwhile will not start
                self._drop(set(meta.slots))
            elif isinstance(meta, Drain):
                self.drain()
            elif isinstance(meta, Move):
                with self.changed:
                    self.orders.append(meta.what)
                    self.changed.notify()

    def _accept(self, items: list[Item], bodies: memoryview, most: int | None) -> None:
        self._note_arrivals(len(items))
        self._interrupter.renew(item.slot for item in items)
        pieces = list(zip(items, split([item.nbytes for item in items], bodies), strict=True))
        with self.changed:
            self.most = most
            self._dropped.difference_update(item.slot for item in items)  # the slot has a new owner
            self.decoding += len(items)
            if self._threads:
                self._undecoded.extend(pieces)
                self._work.notify_all()
                return
        self._hand_over(len(pieces), [done for done in (self._decode(*piece) for piece in pieces) if done])

    def drain(self) -> None:
        """Give back what has not started, and whatever comes yet. For any thread."""
        with self.changed:
            self._draining = True
            self._return_everything()
            self.changed.notify()

    def _return_everything(self) -> None:
        """Say at once what has not started, also while the device is busy with a batch."""
        slots = [one.item.slot for one in self.ready] + [item.slot for item, _ in self._undecoded]
        self.decoding -= len(self._undecoded)
        self.ready.clear()
        self._undecoded.clear()
        self._on_returned(slots)

    def _drop(self, slots: set[int]) -> None:
        """Return those that wait; remember those being decoded just now; what runs or is done answers by itself."""
        with self.changed:
            waiting = [one for one in self.ready if one.item.slot in slots]
            unseen = [piece for piece in self._undecoded if piece[0].slot in slots]
            for one in waiting:
                self.ready.remove(one)
            for piece in unseen:
                self._undecoded.remove(piece)
            self.decoding -= len(unseen)
            returned = [one.item.slot for one in waiting] + [item.slot for item, _ in unseen]
            self._dropped |= slots.difference(returned)
            self._on_returned(returned)

    def _note_arrivals(self, count: int) -> None:
        now = time.monotonic()
        gap = (now - self._last_arrival) / count
        self._last_arrival = now
        self.arrival_gap = gap if self.arrival_gap is None else self.arrival_gap + 0.2 * (gap - self.arrival_gap)

    # --- decoding ---

    def _decode_on(self, place: int) -> None:
        while True:
            with self._work:
                while not self._is_wanted(place):
                    self._work.wait()
                item, body = self._undecoded.popleft()
            started = time.monotonic()
            done = self._decode(item, body)
            share = 0.1 if self.decode_seconds else 1.0
            self.decode_seconds += share * (time.monotonic() - started - self.decode_seconds)
            self._hand_over(1, [done] if done else [])

    def _is_wanted(self, place: int) -> bool:
        wanted = decoders_wanted(len(self.ready), target=self.target, threads=self._threads)
        return bool(self._undecoded) and place < wanted

    def _decode(self, item: Item, body: memoryview) -> Decoded | None:
        self._recorder.mark(item.slot, State.DECODING, time.monotonic())
        try:
            value = self._model.decode(item.content_type, body)
        except BaseException as error:  # also a SystemExit: it must not end this thread
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
