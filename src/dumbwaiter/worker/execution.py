"""One batch through the model: out of memory halves it, an unexplained error is traced to its member."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dumbwaiter.errors import BadInputError, PermanentError, TransientError
from dumbwaiter.models.importing import headline
from dumbwaiter.policies.retrying import Fault as FaultKind
from dumbwaiter.worker.pipe import Fault

Starting = Callable[[range], None]

_TRANSIENT_ERRNOS = {errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EBUSY, errno.EMFILE, errno.ENFILE}
_NO_MEMORY = ("DefaultCPUAllocator", "CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_DETAIL_NCHARS = 16_000


class Predicts(Protocol):
    """So much of a LoadedModel is needed here."""

    def predict(self, inputs: Sequence[Any]) -> list[Any]:
        """One call of the model."""
        ...


def run_batch(model: Predicts, inputs: Sequence[Any], starting: Starting, *, first: int = 0) -> list[Any]:
    """Outputs in order; an Exception in a place is that member's own failure.

    A batch that runs out of memory is halved, down to single inputs. A batch that raises anything else is run again
    one by one, so that each member gets its own verdict and its mates lose nothing. *starting* hears before each call
    of the model which places of the batch run now; *first* is the place of the first of *inputs*.
    """
    starting(range(first, first + len(inputs)))
    try:
        return model.predict(inputs)
    except Exception as error:
        if len(inputs) == 1:
            return [error]
        size = 1
        if is_out_of_memory(error):
            release_device_memory()
            size = (len(inputs) + 1) // 2
    parts = range(0, len(inputs), size)
    return [
        output
        for start in parts
        for output in run_batch(model, inputs[start : start + size], starting, first=first + start)
    ]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether *error* says that the device (or the host) had no memory left for this batch."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    # torch says so of the host's memory, and its libraries of the device's, in the text alone.
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def release_device_memory() -> None:
    """Give back what torch keeps cached, if torch is in use at all."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def describe_fault(error: BaseException) -> Fault:
    """What the consumer has to know of an exception from decoding, the model or encoding."""
    kind, code = _classify(error)
    message = (str(error) if kind is FaultKind.PERMANENT else "") or headline(error)
    detail = "".join(traceback.format_exception(error))
    return Fault(kind, code, _sendable(message[:2000]), _sendable(detail[-_DETAIL_NCHARS:]))


def _sendable(text: str) -> str:
    """A file name in an error's text may hold what UTF-8 cannot."""
    return text.encode(errors="backslashreplace").decode()


def _classify(error: BaseException) -> tuple[FaultKind, str]:
    if isinstance(error, BadInputError):
        return FaultKind.PERMANENT, "bad-input"
    if isinstance(error, PermanentError):
        return FaultKind.PERMANENT, "model-error"
    if is_out_of_memory(error):
        return FaultKind.TRANSIENT, "out-of-memory"
    if isinstance(error, (TransientError, ConnectionError, TimeoutError)):
        return FaultKind.TRANSIENT, "transient"
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS:
        return FaultKind.TRANSIENT, "transient"
    return FaultKind.UNKNOWN, "model-error"
