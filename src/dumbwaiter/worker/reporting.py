"""The runner's side of progress: that an input starts, the chunks of its output, and what its model prints.

Only inputs that report cost anything. What is printed belongs to one of them only while it runs alone, and only in the
main thread: any other thread may be decoding somebody else's input.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from dumbwaiter.worker.interrupting import Interrupter
from dumbwaiter.worker.pipe import Progress, Report

LOG_NBYTES = 64 * 1024
"""So much of what one request prints is kept; the rest only appears in the worker's own log."""

_CUT = f"\n[only the first {LOG_NBYTES // 1024} KiB of what is printed are kept]\n"
_LINE_NCHARS = 4096
_log = logging.getLogger(__name__)
Send = Callable[[Progress, Sequence[bytes]], None]


class Reporter:
    """Says over the pipe how inputs are getting on. For the main thread."""

    def __init__(self, send: Send, interrupter: Interrupter) -> None:
        self._send = send
        self._interrupter = interrupter
        self._slot: int | None = None
        self._thread = 0
        self._pending = ""
        self._left = 0
        self._speaking = False

    def started(self, slots: Iterable[int]) -> None:
        """The model starts on these."""
        reports = [Report(slot, "start") for slot in slots]
        if reports:
            self._say(reports, [])

    def chunk(self, slot: int, content_type: str, body: bytes) -> None:
        """The model has yielded a chunk of its output."""
        self._say([Report(slot, "output", content_type, len(body))], [body])

    def listen(self, slot: int) -> None:
        """What this thread prints from now on belongs to the input in *slot*."""
        self._thread, self._pending, self._left = threading.get_ident(), "", LOG_NBYTES - len(_CUT)
        self._slot = slot

    def stop_listening(self) -> None:
        """What is printed belongs to nobody any more; say what has no end of a line yet."""
        slot, self._slot = self._slot, None
        if slot is not None and self._pending and self._left > 0:
            self._log(slot, self._pending)

    def forget(self) -> None:
        """In a forked child: say nothing in its parent's name."""
        self._slot = None

    def hear(self, text: str) -> None:
        """*text* was printed: whole lines are said at once."""
        if self._slot is None or self._left <= 0 or threading.get_ident() != self._thread:
            return
        self._pending += text
        # A destructor may print while a frame is being sent; its text goes with the next one.
        if self._speaking or not ("\n" in text or len(self._pending) > _LINE_NCHARS):
            return
        end = self._pending.rfind("\n") + 1 or len(self._pending)
        said, self._pending = self._pending[:end], self._pending[end:]
        self._interrupter.undisturbed(self._log, self._slot, said)

    def _log(self, slot: int, text: str) -> None:
        body = text.encode(errors="backslashreplace")
        if len(body) > self._left:
            body = first_nbytes(body, self._left) + _CUT.encode()
            self._left = 0
        else:
            self._left -= len(body)
        self._say([Report(slot, "log", "text/plain; charset=utf-8", len(body))], [body])

    def _say(self, reports: list[Report], bodies: Sequence[bytes]) -> None:
        self._speaking = True
        try:
            self._send(Progress(reports), bodies)
        except OSError as error:  # the consumer is gone: the reader thread has seen it too
            _log.debug("progress that nobody hears: %s", error)
        finally:
            self._speaking = False


class HeardStream(io.TextIOWrapper):
    """sys.stdout or sys.stderr: what is written goes where it always went, and the process's *ear* hears it."""

    ear: ClassVar[Callable[[str], None] | None] = None

    @classmethod
    def over(cls, stream: io.TextIOWrapper) -> HeardStream:
        """Take *stream*'s place; it cannot be used any more."""
        settings = {
            "encoding": stream.encoding,
            "errors": stream.errors,
            "line_buffering": stream.line_buffering,
            "write_through": stream.write_through,
        }
        return cls(stream.detach(), **settings)  # type: ignore[arg-type]

    def write(self, text: str, /) -> int:
        """Write *text*, as a stream does."""
        count = super().write(text)
        if HeardStream.ear is not None:
            HeardStream.ear(text)
        return count


def hear_prints() -> None:
    """Let HeardStream.ear hear what this process prints by Python's own means.

    Call it before anything is imported that may hold on to the streams.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            heard = HeardStream.over(stream)
            setattr(sys, name, heard)
            setattr(sys, f"__{name}__", heard)


def first_nbytes(text: bytes, limit: int) -> bytes:
    """At most *limit* bytes of UTF-8 *text*, no character cut in two."""
    return text[:limit].decode(errors="ignore").encode()
