"""Keeps the processes of ``dumbwaiter serve`` alive: starts them, restarts the dead, stops all in order.

Workers may come and go while it runs: see add() and retire().

A child is started from the main thread (PR_SET_PDEATHSIG follows the thread), in a process group of its own, so that
Ctrl-C on the terminal reaches the supervisor alone and children always get a SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from dumbwaiter.cli.restarting import deaths_in_a_row, is_hopeless, restart_delay
from dumbwaiter.cli.status_pipe import Report
from dumbwaiter.cli.turns import Turns
from dumbwaiter.signals import RETIRE, describe_exit
from dumbwaiter.tasks import end, unless

if TYPE_CHECKING:
    from dumbwaiter.config import Settings

_HURRIED = 1.0
_AFTER_GRACE = 5.0
_MUTE_FOR = 60.0
"""Seconds after its start in which a worker has to have said anything, which takes imports and a broker's connection.
One that has not hangs, and holds no message yet.
"""


class Plan(msgspec.Struct, frozen=True):
    """A process to keep alive: its *name* for people, the *model* of a worker (None for others), its command line.

    One that *comes_and_goes* is never given up on: it is started again ever more slowly, and all others go on.
    """

    name: str
    model: str | None
    arguments: Sequence[str]
    role: Literal["gateway", "worker", "courier"] = "worker"
    comes_and_goes: bool = False


class Child:
    """A planned process and what is known of it. *process* is None between a death and the restart, *last_words* what
    it died of or said was wrong. *workers* are the names by which its processes announced themselves, the newest last.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.process: asyncio.subprocess.Process | None = None
        self.report = Report(state="starting")
        self.ever_ready = False
        self.deaths = 0
        self.last_words = ""
        self.workers: list[str] = []
        self.is_mute = False
        self.retired = asyncio.Event()

    def heed(self) -> None:
        """It has said how it is."""
        report = self.report
        self.ever_ready = self.ever_ready or report.state == "ready"
        if report.reason:
            self.last_words = report.reason
        if report.worker and report.worker not in self.workers:
            self.workers.append(report.worker)

    def signal(self, number: signal.Signals) -> None:
        """Send *number* to the process, if there is one."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)


class Audience(Protocol):
    """Who is told what happens; see serve_view.py."""

    def started(self, child: Child) -> None: ...
    def reported(self, child: Child) -> None: ...
    def said(self, child: Child, line: str) -> None: ...
    def died(self, child: Child, why: str, delay: float | None) -> None: ...
    def left(self, child: Child) -> None: ...


class Supervisor:
    """Runs *plans* until *stop* is set; *hurry* shortens the stopping."""

    def __init__(self, plans: Iterable[Plan], audience: Audience, settings: Settings) -> None:
        self.children = [Child(plan) for plan in plans]
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self._audience = audience
        self._gateway_grace = gateway_grace(settings)
        # Workers and the courier leave side by side: what is still to be delivered then waits in the queue.
        self._grace = max(settings.worker.grace, settings.courier.grace)
        self._failed = False
        self._keepers: dict[Child, asyncio.Task[None]] = {}
        self._turns = Turns()

    async def run(self) -> int:
        """Keep all children alive until told to stop; 0, or 1 when one of them was given up on."""
        for child in self.children:
            if child not in self._keepers:
                self._keep(child)
        await self.stop.wait()
        await self._stop_all(self._keepers)
        faults = [keeper.exception() for keeper in self._keepers.values() if keeper.done()]
        for child, keeper in self._keepers.items():
            if not keeper.done():  # not even SIGKILL ends it, as when a device driver hangs
                self._failed = True
                self._audience.died(child, "cannot be killed: the kernel is still at work for it", None)
        if (fault := next(filter(None, faults), None)) is not None:
            raise fault
        return 1 if self._failed else 0

    def add(self, plan: Plan) -> None:
        """Start one more, before or while run() runs. What is being stopped gets nobody new."""
        if not self.stop.is_set():
            child = Child(plan)
            self.children.append(child)
            self._keep(child)

    def retire(self, child: Child) -> None:
        """Have a worker take nothing more and leave once what runs has ended, however long that takes."""
        if not child.retired.is_set():
            child.retired.set()
            # Before its first report a worker does not listen yet, and has nothing that could be lost.
            child.signal(signal.SIGTERM if child.report.state == "starting" else RETIRE)

    def _keep(self, child: Child) -> None:
        keeper = self._keepers[child] = asyncio.create_task(self._keep_alive(child))
        keeper.add_done_callback(lambda _: self._ended(child))

    def _ended(self, child: Child) -> None:
        """A retired one is forgotten. Another one that ends before it is told to has been given up on, and ends all."""
        if self.stop.is_set():
            return
        if child.retired.is_set() and self._keepers[child].exception() is None:
            del self._keepers[child]
            self.children.remove(child)
            self._audience.left(child)
        else:
            self.stop.set()

    async def _keep_alive(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        while not (self.stop.is_set() or child.retired.is_set()):
            if child.plan.role == "worker":  # the others are few, and everybody waits for them
                await unless(self.stop, unless(child.retired, self._turns.take(child)))
            started_at = loop.time()
            try:
                if self.stop.is_set() or child.retired.is_set():
                    return
                code = await self._run_once(child)
                why = _MUTE if child.is_mute else describe_exit(code)
            except _CannotStartError as error:
                code, why = 1, str(error)
            finally:
                self._turns.pass_on(child)
            if child.plan.comes_and_goes and code == 0 and child.report.state == "draining":
                child.retired.set()  # by somebody's hand
            if self.stop.is_set() or child.retired.is_set():
                return
            child.deaths = deaths_in_a_row(child.deaths, loop.time() - started_at)
            child.last_words = why
            hopeless = is_hopeless(exit_code=code, deaths=child.deaths, ever_ready=child.ever_ready)
            if hopeless and not child.plan.comes_and_goes:
                self._failed = True
                self._audience.died(child, why, None)
                return
            delay = restart_delay(child.deaths)
            self._audience.died(child, why, delay)
            if await self._pause(delay, child.retired):
                return

    async def _pause(self, seconds: float, retired: asyncio.Event) -> bool:
        """Wait; True as soon as there is nothing to wait for any more."""
        stopping, retiring = asyncio.create_task(self.stop.wait()), asyncio.create_task(retired.wait())
        done, _ = await asyncio.wait({stopping, retiring}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        await end((stopping, retiring))
        return bool(done)

    async def _run_once(self, child: Child) -> int:
        """Start the process, pass on what it says, return its exit code. Raises _CannotStartError."""
        process, readable = await _start(child.plan)
        child.process = process
        child.report = Report(state="starting")
        child.is_mute = False
        mute = asyncio.get_running_loop().call_later(_MUTE_FOR, self._end_mute, child)
        self._audience.started(child)
        if self.stop.is_set() or child.retired.is_set():  # while it was being made, so nobody has signalled it
            child.signal(signal.SIGTERM)
        readers = [
            asyncio.create_task(self._read_output(child)),
            asyncio.create_task(self._read_status(child, readable)),
        ]
        code = await process.wait()
        mute.cancel()
        # A grandchild may hold the pipes open for a while; what it says is welcome, but not waited for.
        await asyncio.wait(readers, timeout=0.5)
        await end(readers)
        child.process = None
        return code

    def _end_mute(self, child: Child) -> None:
        if child.plan.role == "worker" and child.report.state == "starting":
            child.is_mute = True
            child.signal(signal.SIGKILL)

    async def _read_output(self, child: Child) -> None:
        if child.process is not None and child.process.stdout is not None:
            async for line in _lines(child.process.stdout):
                self._audience.said(child, line.decode(errors="replace"))

    async def _read_status(self, child: Child, fd: int) -> None:
        reader = asyncio.StreamReader()
        with os.fdopen(fd, "rb", buffering=0) as pipe:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), pipe
            )
            try:
                async for line in _lines(reader):
                    child.report = msgspec.json.decode(line, type=Report)
                    # What the child wrote before this is in the other pipe by now, and is to be passed on before it.
                    await asyncio.sleep(0)
                    child.heed()
                    if child.report.state != "starting":
                        self._turns.pass_on(child)
                    self._audience.reported(child)
            finally:
                transport.close()

    async def _stop_all(self, keepers: dict[Child, asyncio.Task[None]]) -> None:
        """Gateways first: they take no new requests and wait for the answers under way, which workers still give."""
        gateways = {child: keeper for child, keeper in keepers.items() if child.plan.role == "gateway"}
        await self._end(gateways, signal.SIGTERM, self._gateway_grace + _AFTER_GRACE)
        await self._end(keepers, signal.SIGTERM, self._grace + _AFTER_GRACE)
        await self._end(keepers, signal.SIGKILL, _AFTER_GRACE)

    async def _end(self, keepers: dict[Child, asyncio.Task[None]], number: signal.Signals, patience: float) -> None:
        """Send *number* to those still there and wait until they are gone, at most *patience* seconds."""
        for child in keepers:
            child.signal(number)
        alive = [keeper for keeper in keepers.values() if not keeper.done()]
        if not alive:
            return
        gone = asyncio.ensure_future(asyncio.wait(alive))
        hurried = asyncio.ensure_future(self.hurry.wait())
        await asyncio.wait({gone, hurried}, timeout=max(0.0, patience), return_when=asyncio.FIRST_COMPLETED)
        if hurried.done() and not gone.done():
            # To a worker a second SIGTERM means: hand back what you hold, now. (Two at once would count as one.)
            await asyncio.wait({gone}, timeout=0.1)
            for child in keepers:
                child.signal(number)
            await asyncio.wait({gone}, timeout=_HURRIED)
        gone.cancel()
        hurried.cancel()


_MUTE = f"said nothing in the {_MUTE_FOR:g} s after its start, as one that hangs, and was killed"


class _CannotStartError(Exception):
    """The system gives no process: too many of them, or of open files, or too little memory. That may pass."""


def gateway_grace(settings: Settings) -> float:
    """Seconds that a gateway gets when all is stopped: its waiting callers must not use up the workers' time."""
    return min(settings.gateway.grace, settings.worker.grace / 2)


async def _start(plan: Plan) -> tuple[asyncio.subprocess.Process, int]:
    """A process of *plan*, and the descriptor on which it says how it is. Raises _CannotStartError, and leaves nothing
    behind then.
    """
    try:
        readable, writable = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "dumbwaiter", *plan.arguments, "--status-fd", str(writable)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(writable,),
                process_group=0,
            )
        except BaseException:
            os.close(readable)
            raise
        finally:
            os.close(writable)
    except OSError as error:
        raise _CannotStartError(f"cannot be started: {error.strerror or error}") from error
    except RuntimeError as error:  # Python 3.11 waits for each child in a thread, which counts as a process too
        raise _CannotStartError(f"cannot be started: {error}") from error
    return process, readable


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines of any length (StreamReader.readline() fails above 64 KiB)."""
    rest = b""
    while chunk := await reader.read(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest
