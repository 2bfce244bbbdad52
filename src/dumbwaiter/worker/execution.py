"""One batch through the model: out of memory halves it, an unexplained error is traced to its member."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dumbwaiter.devices.failures import is_device_out_of_memory, is_host_out_of_memory
from dumbwaiter.errors import BadInputError, PermanentError, TransientError
from dumbwaiter.models.importing import headline
from dumbwaiter.policies.retrying import Fault as FaultKind
from dumbwaiter.worker.device_memory import DeviceMemory
from dumbwaiter.worker.pipe import OUT_OF_MEMORY, Fault

Starting = Callable[[range], None]

_TRANSIENT_ERRNOS = {errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EBUSY, errno.EMFILE, errno.ENFILE}
_DETAIL_NCHARS = 16_000


class NotRun(Exception):  # noqa: N818 - it stands in an output's place and is no error of anybody's
    """In the place of an output: the shared device had too little room for this input beside its mates."""


class Predicts(Protocol):
    """So much of a LoadedModel is needed here."""

    def predict(self, inputs: Sequence[Any]) -> list[Any]:
        """One call of the model."""
        ...


def run_batch(
    model: Predicts, inputs: Sequence[Any], starting: Starting, *, first: int = 0, memory: DeviceMemory | None = None
) -> list[Any]:
    """Outputs in order; an Exception in a place is that member's own failure.

    A batch that runs out of memory is halved, down to single inputs; where it was that of a shared device (*memory*),
    the first half is run alone, and NotRun stands in the places of the others. A batch that raises anything else is run
    again one by one, so that each member gets its own verdict and its mates lose nothing. *starting* hears before each
    call of the model which places of the batch run now; *first* is the place of the first of *inputs*. Raises
    ContextDeadError.
    """
    starting(range(first, first + len(inputs)))
    try:
        return model.predict(inputs) if memory is None else memory.call(model.predict, inputs)
    except Exception as error:
        lacks_room = memory is not None and memory.recover(error, len(inputs))
        if len(inputs) == 1:
            return [error]
        size = 1
        if is_out_of_memory(error):
            release_device_memory()
            size = (len(inputs) + 1) // 2
    last = size if lacks_room else len(inputs)
    outputs = [
        output
        for start in range(0, last, size)
        for output in run_batch(model, inputs[start : start + size], starting, first=first + start, memory=memory)
    ]
    return outputs + [NotRun()] * (len(inputs) - last)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether *error*, or what it was raised from, says that a device or the host had no memory left."""
    return is_device_out_of_memory(error) or is_host_out_of_memory(error)


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
        return FaultKind.TRANSIENT, OUT_OF_MEMORY
    if isinstance(error, (TransientError, ConnectionError, TimeoutError)):
        return FaultKind.TRANSIENT, "transient"
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS:
        return FaultKind.TRANSIENT, "transient"
    return FaultKind.UNKNOWN, "model-error"
