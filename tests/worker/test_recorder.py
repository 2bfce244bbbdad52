"""The flight recorder survives the process that writes it."""

from __future__ import annotations

import os
import subprocess
import sys

from dumbwaiter.worker.recorder import SLOTS, FlightRecorder, State


def test_what_a_killed_process_was_doing_can_still_be_read() -> None:
    recorder = FlightRecorder.create()
    code = (
        "import os, sys, signal\n"
        "from dumbwaiter.worker.recorder import FlightRecorder, State\n"
        "recorder = FlightRecorder(int(sys.argv[1]))\n"
        "recorder.mark(3, State.RUNNING, 10.0)\n"
        "recorder.mark(4, State.DECODING, 12.0)\n"
        "recorder.mark(5, State.RUNNING, 11.0)\n"
        "recorder.mark(5, State.IDLE, 0.0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(recorder.fd)], pass_fds=[recorder.fd], check=False)
    assert done.returncode == -9
    assert recorder.busy(list(range(SLOTS))) == [3, 4]
    assert recorder.read(3) == (State.RUNNING, 10.0)
    assert recorder.longest([3, 4, 5], now=15.0) == 5.0
    recorder.close()


def test_nothing_is_going_on_in_a_fresh_recorder() -> None:
    recorder = FlightRecorder.create()
    assert recorder.busy(list(range(SLOTS))) == []
    assert recorder.longest([0, 1], now=99.0) == 0.0
    fd = recorder.fd
    recorder.close()
    try:
        os.fstat(fd)
    except OSError:
        return
    raise AssertionError("close() left the memory file open")
