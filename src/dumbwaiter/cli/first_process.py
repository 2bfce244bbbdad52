"""Process 1 of a container: it takes in what others leave behind, and passes signals on to the one that works.

When a runner is killed, what its model had started becomes a child of process 1, and stays as a zombie until somebody
waits for it. The process that works waits for children of its own only.
"""

from __future__ import annotations

import contextlib
import os
import signal

_PASSED_ON = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
)


def work_as_child_of_process_1() -> None:
    """As process 1, go on in a child and look after it: the parent never returns, and ends as the child does.

    Any other process goes on as it is.
    """
    if os.getpid() != 1:
        return
    # Blocked, they wait for the loop below, also those that come before it is there.
    heard = _PASSED_ON | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    child = os.fork()
    if child == 0:
        _lead_the_terminal()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    os._exit(_look_after(child, heard))


def _lead_the_terminal() -> None:
    """A group of its own: what is typed there is for it alone, and comes once."""
    os.setpgid(0, 0)
    if os.isatty(0):
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        with contextlib.suppress(OSError):  # not the terminal of this session
            os.tcsetpgrp(0, os.getpgrp())
        signal.signal(signal.SIGTTOU, before)


def _look_after(child: int, heard: frozenset[signal.Signals]) -> int:
    """The exit code of *child*, as a shell tells it, once it has ended."""
    while True:
        number = signal.sigwait(heard)
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
            continue
        for ended, status in _ended():
            if ended == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


def _ended() -> list[tuple[int, int]]:
    """Children that have ended since, their own and those that were left behind."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while (one := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(one)
    return found
