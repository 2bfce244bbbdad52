"""Ends a call of the model whose output nobody wants any more: a signal that raises inside the model's code only.

A cancelled batch occupies the device, and only its own thread can leave it in good order. So the reader thread sends
the main thread a signal, and its handler raises Interrupted wherever the model's code is just then, as Ctrl-C would.
It never raises outside the model: not between calls, not while an output is encoded, and not while a frame is being
sent, which would be torn. C code that does not return to Python is not reached; the consumer kills its process.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
SIGNAL = signal.SIGUSR2


class Interrupted(BaseException):
    """Raised in the model's code. No Exception, so that a model's own ``except Exception`` lets it pass."""


class Canceled(Exception):  # noqa: N818 - it stands in an output's place and is no error of anybody's
    """In the place of an output that nobody wants any more."""


class Interrupter:
    """cancel() and renew() are for the reader thread, the rest for the main thread, where the model runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: frozenset[int] = frozenset()
        self._cancelled: set[int] = set()
        self._armed = False
        self._main = threading.main_thread().ident or 0
        # A signal that comes while one of these frames is the innermost comes before or after the model's code.
        self._ours = {code.__code__ for code in (Interrupter.call, Interrupter.undisturbed, Interrupter.check)}

    def install(self) -> None:
        """Handle the signal from now on."""
        signal.signal(SIGNAL, self._on_signal)

    def cancel(self, slots: Iterable[int]) -> None:
        """Nobody wants these outputs. Said again it interrupts again: a model may have swallowed the first one."""
        with self._lock:
            self._cancelled.update(slots)
            if self._running and self._running <= self._cancelled:
                signal.pthread_kill(self._main, SIGNAL)

    def renew(self, slots: Iterable[int]) -> None:
        """These slots have new owners."""
        if self._cancelled:
            with self._lock:
                self._cancelled.difference_update(slots)

    def call(self, slots: Iterable[int], function: Callable[..., T], *arguments: Any) -> T:
        """function(*arguments), for the inputs in *slots*. Raises Interrupted once all of these are cancelled."""
        with self._lock:
            self._running = frozenset(slots)
        try:
            self.check()
            self._armed = True
            return function(*arguments)
        finally:
            self._armed = False
            with self._lock:
                self._running = frozenset()

    def undisturbed(self, function: Callable[..., None], *arguments: Any) -> None:
        """From within a call: function(*arguments) is not interrupted; what came meanwhile is raised afterwards."""
        armed, self._armed = self._armed, False
        try:
            function(*arguments)
        finally:
            self._armed = armed
        if armed:
            self.check()

    def check(self) -> None:
        """Raise Interrupted if all that runs is cancelled."""
        with self._lock:
            unwanted = self._running and self._running <= self._cancelled
        if unwanted:
            raise Interrupted

    def _on_signal(self, _number: int, frame: FrameType | None) -> None:
        # The handler takes no lock: the thread that it interrupts may hold it.
        if self._armed and frame is not None and frame.f_code not in self._ours:
            raise Interrupted
