"""Where a runner lives: waits for its place on the device, and has its memory there moved, over its pipe."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from dumbwaiter.devices.admission import Admission, Moved, Place, What
from dumbwaiter.worker.autopsy import CauseOfDeath
from dumbwaiter.worker.pipe import Move
from dumbwaiter.worker.runner_process import RunnerProcess

_TELL_WAIT_EVERY = 1.0
_RETIRED = CauseOfDeath(code="canceled", message="the runner was ended, so that others can have its memory")
_log = logging.getLogger(__name__)


class RunnerMover:
    """devices.admission.Mover for the runner of the day. One order at a time; none takes longer than *timeout*."""

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout
        self._runner: RunnerProcess | None = None
        self._answer: asyncio.Future[Moved | None] | None = None
        self.is_retired = False
        """Whether the runner was ended, or is ending, since its memory is wanted elsewhere."""

    def serve(self, runner: RunnerProcess) -> None:
        """From now on *runner* is meant."""
        self._runner, self.is_retired = runner, False

    def lose(self) -> None:
        """The runner is dead: whoever waits for it is told so."""
        self._runner = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def heed(self, moved: Moved) -> None:
        """The runner has done what it was asked. Raises ValueError when it was asked nothing."""
        if self._answer is None or self._answer.done():
            raise ValueError("the runner says that memory was moved, and nobody asked it to")
        self._answer.set_result(moved)

    async def move(self, what: What) -> Moved | None:
        """As Mover.move. A runner that does not answer in time is killed."""
        runner = self._runner
        if runner is None:
            return None
        self._answer = answer = asyncio.get_running_loop().create_future()
        try:
            await runner.pipe.send(Move(what))
            async with asyncio.timeout(self._timeout):
                moved: Moved | None = await answer
                return moved
        except OSError:  # TimeoutError is one
            if runner.alive and not answer.done():
                _log.error("the runner has not moved its memory (%s) within %.0f s: killing it", what, self._timeout)
                await runner.kill_hung(self._timeout)
            return None
        finally:
            self._answer = None

    async def retire(self) -> None:
        """As Mover.retire."""
        runner = self._runner
        if runner is not None:
            self.is_retired = True
            runner.condemn(_RETIRED)
            await runner.died()


async def find_place(admission: Admission, tell: Callable[[str, str], object]) -> Place:
    """Wait until the device has room for the model; *tell* hears meanwhile the state, and why."""
    finding = asyncio.create_task(admission.make_place())
    said = ""
    try:
        while not (await asyncio.wait({finding}, timeout=_TELL_WAIT_EVERY))[0]:
            state = "failing" if admission.is_hopeless else "loading"
            if admission.reason and state != said:
                said = state
                tell(state, admission.reason)
        if said:
            tell("loading", "")
        return finding.result()
    finally:
        finding.cancel()
