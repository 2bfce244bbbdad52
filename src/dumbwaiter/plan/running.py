"""Many runs in processes of their own: told one by one as they end, and gone with whoever wanted them.

Each process has a pipe and nothing else, so that nothing is left to clean up when the parent is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from dumbwaiter.errors import DumbwaiterError

W = TypeVar("W")
R = TypeVar("R")
Tell = Callable[[int, int], None]
"""Hears how many runs of how many have ended."""
_PR_SET_PDEATHSIG = 1


def results_of(run: Callable[[W], R], work: Sequence[W], *, processes: int, tell: Tell | None = None) -> list[R]:
    """What *run* makes of each of *work*, in that order, in so many *processes*; one is this one.

    Raises what *run* raised, and DumbwaiterError where a process died. However it ends, all of them have ended.
    """
    heard: Tell = tell or (lambda _done, _total: None)
    if processes == 1:
        results = []
        for one in work:
            results.append(run(one))
            heard(len(results), len(work))
        return results
    with _crew(run, min(processes, len(work))) as pipes:
        return _shared_out(work, pipes, heard)


def _shared_out(work: Sequence[Any], pipes: dict[Connection, SpawnProcess], heard: Tell) -> list[Any]:
    """Each process is given the next of *work* when it has done the one before."""
    found: dict[int, Any] = {}
    todo = iter(enumerate(work))
    busy = {pipe: place for pipe in pipes if (place := _give(pipe, todo)) is not None}
    while busy:
        for ready in wait(list(busy)):
            pipe = next(one for one in busy if one is ready)
            try:
                result, error = pipe.recv()
            except (EOFError, OSError) as gone:
                pipes[pipe].join()
                raise DumbwaiterError(
                    f"a process that simulates ended by itself (exit code {pipes[pipe].exitcode}; -9 is most often too"
                    " little memory); give fewer requests, or a shorter --duration"
                ) from gone
            if error is not None:
                raise error
            found[busy.pop(pipe)] = result
            heard(len(found), len(work))
            if (place := _give(pipe, todo)) is not None:
                busy[pipe] = place
    return [found[place] for place in range(len(work))]


def _give(pipe: Connection, todo: Iterator[tuple[int, Any]]) -> int | None:
    """The place of what *pipe* was given; None: nothing is left."""
    place, one = next(todo, (None, None))
    if place is not None:
        with suppress(BrokenPipeError):  # that it is dead is seen where its answer is waited for
            pipe.send(one)
    return place


@contextmanager
def _crew(run: Callable[[Any], Any], count: int) -> Iterator[dict[Connection, SpawnProcess]]:
    """So many processes by their pipes; killed at the end, whatever they run."""
    spawn = get_context("spawn")
    crew: dict[Connection, SpawnProcess] = {}
    resource_tracker.ensure_running()  # it lets Ctrl-C through again, so it comes before that is held back
    try:
        for _ in range(count):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_work, args=(theirs, run, os.getpid()), daemon=True)
            with _no_interrupt():
                process.start()
                crew[ours] = process
            theirs.close()
        yield crew
    finally:
        for process in crew.values():
            process.kill()
        for pipe, process in crew.items():
            process.join()
            pipe.close()


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back. Whoever is started meanwhile never hears it: it is the parent's business."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, run: Callable[[Any], Any], parent: int) -> None:
    """Run what comes over *pipe* until nothing does. A parent that died is followed: at once on Linux, elsewhere after
    the run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # it died before we asked to be told
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            one = pipe.recv()
            answer: tuple[Any, Exception | None]
            try:
                answer = (run(one), None)
            except Exception as error:  # whoever waits for the answer raises it
                answer = (None, error)
            pipe.send(answer)
