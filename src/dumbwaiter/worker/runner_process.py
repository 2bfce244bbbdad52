"""The consumer's handle on its runner: start it, talk to it, see it die, kill it when it hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from dumbwaiter.devices.admission import Place
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.worker.autopsy import CauseOfDeath, explain, oom_kill_count, read_stacks
from dumbwaiter.worker.pipe import ConsumerEnd, Load
from dumbwaiter.worker.recorder import FlightRecorder

_DUMP_TIME = 0.3
_TERM_TIME = 0.3
#: glibc gives large blocks back to the kernel as soon as they are free, and has them cleared again for the next
#: picture or tensor: twice the system time. A runner keeps its memory instead. What the user's own environment says
#: of these wins. Source: mallopt(3).
_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 1024**3),
    "MALLOC_TOP_PAD_": str(64 * 1024 * 1024),
}


class RunnerProcess:
    """One child process. Make it with start(); await died() for its end; close() always."""

    def __init__(
        self, process: subprocess.Popen[bytes], pipe: ConsumerEnd, recorder: FlightRecorder, stacks: int
    ) -> None:
        self._process = process
        self._stacks = stacks
        self._oom_before = oom_kill_count()
        self._hung_for: float | None = None
        self._verdict: CauseOfDeath | None = None
        self._died = asyncio.get_running_loop().create_future()
        self.pipe = pipe
        self.recorder = recorder
        self.started_at = time.monotonic()
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._reap)

    @classmethod
    async def start(cls, spec: ModelSpec, place: Place | None = None) -> RunnerProcess:
        """Spawn the child and tell it what to load; its answer comes over the pipe.

        *place* is where it may live; without one it shares no device. From the moment it is spawned it holds the
        place's seat too, until it is dead.

        Call it from the thread that outlives the runner: the kernel ties the child's life to that thread.
        """
        ours, theirs = socket.socketpair()
        recorder = FlightRecorder.create()
        stacks = os.memfd_create("dumbwaiter-stacks")
        place = place or Place()
        fds = [theirs.fileno(), recorder.fd, stacks]
        arguments = [str(number) for number in (*fds, os.getpid())]
        if place.seat_fd is not None:
            fds.append(place.seat_fd)
            arguments.append(str(place.seat_fd))
        try:
            process = subprocess.Popen(  # noqa: ASYNC220,S603 - forking takes about a millisecond; our own module
                [sys.executable, "-P", "-m", "dumbwaiter.worker.runner", *arguments],
                env={**_ALLOCATOR, **os.environ, **place.environment},
                pass_fds=fds,
                process_group=0,
                stdin=subprocess.DEVNULL,
                stdout=sys.__stderr__ if _has_fileno(sys.__stderr__) else subprocess.DEVNULL,
            )
        except OSError:
            ours.close()
            recorder.close()
            os.close(stacks)
            raise
        finally:
            theirs.close()
        runner = cls(process, await ConsumerEnd.over(ours), recorder, stacks)
        with contextlib.suppress(OSError):  # it died already: died() will tell
            await runner.pipe.send(Load(spec, place.device, place.probes))
        return runner

    @property
    def pid(self) -> int:
        """Process id of the child, which leads a process group of its own."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child has not been seen dead."""
        return not self._died.done()

    async def died(self) -> CauseOfDeath:
        """Wait for the child's end; why it came."""
        returncode: int = await asyncio.shield(self._died)
        return self._verdict or explain(
            returncode,
            oom_before=self._oom_before,
            oom_after=oom_kill_count(),
            hung_for=self._hung_for,
            stacks=read_stacks(self._stacks),
        )

    def condemn(self, why: CauseOfDeath) -> None:
        """Kill the child at once; *why* is what died() will say."""
        self._verdict = why
        self._kill_group()

    async def kill_hung(self, hung_for: float) -> None:
        """Dump the stacks of its threads as evidence, then end it: SIGTERM, SIGKILL."""
        self._hung_for = hung_for
        self._signal(signal.SIGUSR1)
        await self._wait(_DUMP_TIME)
        self._signal(signal.SIGTERM)
        await self._wait(_TERM_TIME)
        self._kill_group()

    async def close(self) -> None:
        """End the child (SIGKILL: nothing of its is worth waiting for any more) and release everything."""
        if self.alive:
            self._kill_group()
        await asyncio.shield(self._died)
        self._kill_group()  # grandchildren
        self.pipe.close()
        self.recorder.close()
        os.close(self._stacks)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._died.set_result(self._process.wait())

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._died)

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            self._process.send_signal(number)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _has_fileno(stream: object) -> bool:
    try:
        stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
    return True
