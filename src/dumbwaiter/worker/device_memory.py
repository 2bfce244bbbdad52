"""What the runner's model takes of a device that it shares: measured batch by batch, moved when the consumer says so.

Everything here is for the runner's main thread.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from dumbwaiter.devices.admission import What
from dumbwaiter.devices.contract import Allocator
from dumbwaiter.models.contract import LoadedModel
from dumbwaiter.policies.footprints import Observation
from dumbwaiter.worker.interrupting import Canceled
from dumbwaiter.worker.pipe import Moved
from dumbwaiter.worker.shape_buckets import ANY, bucket_of

_log = logging.getLogger(__name__)
_LONGEST_SILENCE = 10.0
#: For so many seconds it is taken for known what a batch takes; then one is seen again as it is by itself.
_EXACT_FOR = 60.0
Predict = Callable[[Sequence[Any]], list[Any]]


class ContextDeadError(Exception):
    """Nothing that this process does on its device can succeed any more: it must exit. Raised from the error that said
    so.
    """


class OutOfRoomError(Exception):
    """The device has no room for the weights, which stay parked. Raised from the framework's own error."""


@runtime_checkable
class Prepares(Protocol):
    """An allocator on whose device it takes much less time to take memory once than piece by piece."""

    def preparable(self) -> int:
        """Bytes that are cached now, after a batch, and could as well have been taken in one piece."""
        ...

    def prepare(self, nbytes: int) -> None:
        """Have *nbytes* cached, in one piece. Raises the framework's out-of-memory error."""
        ...


class DeviceMemory:
    """The memory of *model*, through *allocator*, whose context is open. Make it once the model is loaded.

    *reserved*: bytes that the weights have now, and what else stays when the cache is emptied. What a batch takes
    beyond them is its activation: all of it is seen when nothing was cached at its start, else it is at most that much.

    Where nothing is cached, what a batch like that took the last time is taken at once before it begins, if the
    allocator Prepares: the first batch of each turn would otherwise pay for every piece.
    """

    def __init__(self, allocator: Allocator, model: LoadedModel) -> None:
        self._allocator = allocator
        self._model = model
        self._is_awake, self._is_clean = True, False
        self._bucket = ANY
        self._told: set[tuple[str, int]] = set()
        self._preparable: dict[tuple[str, int], tuple[int, float]] = {}
        self._in_one_piece = allocator if isinstance(allocator, Prepares) else None
        self._told_at = 0.0
        self._news: list[Observation] = []
        self._lacked_room = False
        self._empty_cache()

    # --- batches ---

    def call(self, predict: Predict, inputs: Sequence[Any]) -> list[Any]:
        """predict(*inputs*), to its end on the device; what that took is kept for take_news() if it tells anything."""
        outputs, observation, is_new = self._observed(predict, inputs, prepares=True)
        now = time.monotonic()
        tells = is_new or observation.is_exact or now - self._told_at >= _LONGEST_SILENCE
        if tells and not any(isinstance(output, Canceled) for output in outputs):
            self._tell(observation, now)
        return outputs

    def observe(self, predict: Predict, inputs: Sequence[Any]) -> tuple[list[Any], Observation]:
        """As call(), with what it took."""
        outputs, observation, _ = self._observed(predict, inputs)
        return outputs, observation

    def _observed(
        self, predict: Predict, inputs: Sequence[Any], *, prepares: bool = False
    ) -> tuple[list[Any], Observation, bool]:
        """And whether it needed more than was reserved, or is the first of its kind."""
        allocator, was_clean = self._allocator, self._is_clean
        self._is_clean = False
        self._bucket = bucket_of(inputs)
        is_prepared = prepares and was_clean and self._prepare(len(inputs))
        allocator.reset_peak()
        before, started = allocator.reserved(), time.monotonic()
        outputs = predict(inputs)
        allocator.synchronize()
        seconds, peak = time.monotonic() - started, allocator.peak()
        # Where nothing is cached, nothing stays.
        self._is_clean = was_clean and not is_prepared and allocator.reserved() == before
        nbytes, has_grown = max(0, peak - self.reserved), peak > before
        is_exact = was_clean and (has_grown or not is_prepared)
        found = Observation(self._bucket, len(inputs), nbytes, seconds, is_exact=is_exact)
        if self._in_one_piece and was_clean and not is_prepared and nbytes:
            self._preparable[self._bucket, len(inputs)] = (self._in_one_piece.preparable(), time.monotonic())
        return outputs, found, has_grown or (found.bucket, found.size) not in self._told

    def _prepare(self, size: int) -> bool:
        """Whether memory was taken in advance for *size* inputs like these, as much as they needed the last time."""
        nbytes, at = self._preparable.get((self._bucket, size), (0, 0.0))
        if not (nbytes and self._in_one_piece and time.monotonic() - at < _EXACT_FOR):
            return False
        try:
            self._in_one_piece.prepare(nbytes)
        except Exception as error:
            if not self._allocator.is_out_of_memory(error):
                raise
            # Piece by piece it may still fit.
            self._allocator.empty_cache()
            return False
        return True

    def _tell(self, observation: Observation, now: float) -> None:
        self._told.add((observation.bucket, observation.size))
        self._told_at = now
        self._news.append(observation)

    def take_news(self) -> tuple[list[Observation], bool]:
        """What batches took, and whether there was too little room for one; since this was asked the last time."""
        news, lacked_room = self._news, self._lacked_room
        self._news, self._lacked_room = [], False
        return news, lacked_room

    # --- what goes wrong ---

    def recover(self, error: Exception, size: int) -> bool:
        """After call() raised *error* for *size* inputs: whether the device lacked room. Then its cache is empty now,
        and that is news.

        Raises ContextDeadError.
        """
        if not self._allocator.is_out_of_memory(error):
            self.check(error)
            return False
        self._lacked_room = True
        got_to = max(0, self._allocator.peak() - self.reserved)
        self._tell(Observation(self._bucket, size, got_to, 0.0, is_out_of_memory=True), time.monotonic())
        self._let_go(error)
        return True

    def check(self, error: BaseException) -> None:
        """Raises ContextDeadError when *error* says so, or, where it is vague, the device itself does."""
        if self._allocator.is_sticky(error):
            raise ContextDeadError(f"the device's context is dead: {error}") from error
        try:
            self._allocator.synchronize()
        except Exception as said:
            if self._allocator.is_sticky(said):
                raise ContextDeadError(f"the device's context is dead: {said}") from error

    def _let_go(self, error: Exception) -> None:
        """Give back what the frames of *error* hold, and what is cached. Its traceback still says where it was."""
        seen: set[int] = set()
        waiting: list[BaseException | None] = [error]
        while waiting:
            one = waiting.pop()
            if one is not None and id(one) not in seen:
                seen.add(id(one))
                traceback.clear_frames(one.__traceback__)
                waiting += [one.__cause__, one.__context__]
        self._empty_cache()

    def _empty_cache(self) -> None:
        try:
            self._allocator.synchronize()
            self._allocator.empty_cache()
            self.reserved = self._allocator.reserved()
        except Exception as error:
            self.check(error)
            raise
        self._is_clean = True

    # --- moving ---

    def move(self, what: What) -> Moved:
        """Empty the cache, or park or wake the weights; done when the device has done it. Raises ContextDeadError.

        What cannot be done is logged, and the weights are where they were.
        """
        started, is_done = time.monotonic(), True
        if what == "empty":
            self._empty_cache()
        elif what == "park":
            is_done = self._park()
        else:
            is_done = self._wake_if_it_can()
        return Moved(reserved=self._allocator.reserved(), seconds=time.monotonic() - started, is_done=is_done)

    def _park(self) -> bool:
        if self._is_awake and not self._model.can_park:
            _log.warning("the model cannot be parked: nothing of it can be moved off its device")
            return False
        is_parked = True
        # Should it fail half-way, wake() puts right what has gone already.
        self._is_awake = False
        try:
            self._model.park()
            self._allocator.synchronize()
        except Exception as error:
            self.check(error)
            _log.exception("the model cannot be parked now")
            is_parked = False
            self._let_go(error)
        self._empty_cache()
        return is_parked

    def wake(self) -> None:
        """Have the weights on the device. Raises OutOfRoomError, ContextDeadError, and what else the model raises."""
        if self._is_awake:
            return
        try:
            self._model.wake()
            self._allocator.synchronize()
        except Exception as error:
            if not self._allocator.is_out_of_memory(error):
                self.check(error)
                raise
            self._let_go(error)
            raise OutOfRoomError(f"no room on the device to wake the model: {error}") from error
        self._is_awake = True
        self._empty_cache()

    def _wake_if_it_can(self) -> bool:
        try:
            self.wake()
        except ContextDeadError:
            raise
        except Exception:
            _log.exception("the model cannot be woken now")
            return False
        return True
