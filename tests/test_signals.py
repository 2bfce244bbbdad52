"""Signals: how a process that was told to stop ends, and how an end is said in words."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from dumbwaiter.signals import describe_exit


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-9, "was killed by SIGKILL"),
        (-15, "was killed by SIGTERM"),
        (-11, "was killed by SIGSEGV (segmentation fault)"),
        (-63, "was killed by signal 63"),
    ],
)
def test_an_exit_is_described_in_words(code, words):
    assert describe_exit(code) == words


IMPATIENCE = """
import asyncio, os, signal
from dumbwaiter.signals import told_to_stop

async def main():
    with told_to_stop() as (stop, hurry):
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()

asyncio.run(main())
os.kill(os.getpid(), getattr(signal, {name!r}))
print("ended")
"""


@pytest.mark.parametrize(("name", "exit_code"), [("SIGTERM", 0), ("SIGINT", -signal.SIGINT)])
def test_one_more_sigterm_after_the_last_work_does_not_kill_and_ctrl_c_does(name: str, exit_code: int) -> None:
    done = subprocess.run([sys.executable, "-c", IMPATIENCE.format(name=name)], capture_output=True, check=False)
    assert done.returncode == exit_code, done.stderr.decode()
    assert (b"ended" in done.stdout) is (exit_code == 0)


RETIREMENT = """
import asyncio, os, signal
from dumbwaiter.signals import RETIRE, told_to_retire, told_to_stop

async def main():
    with told_to_stop() as (stop, _), told_to_retire() as retire:
        os.kill(os.getpid(), RETIRE)
        await retire.wait()
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        os.kill(os.getpid(), RETIRE)

asyncio.run(main())
os.kill(os.getpid(), RETIRE)
print("ended")
"""


def test_who_is_told_to_retire_is_not_told_to_stop_and_may_be_told_again_as_often_as_one_likes() -> None:
    done = subprocess.run([sys.executable, "-c", RETIREMENT], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"ended\n"), done.stderr.decode()
