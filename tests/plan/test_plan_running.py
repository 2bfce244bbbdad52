"""Processes that simulate: what they tell, and that they end with the one that wanted them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dumbwaiter.cli.plan_progress import Lines
from dumbwaiter.errors import ConfigError, DumbwaiterError
from dumbwaiter.plan.running import results_of
from dumbwaiter.testing import eventually

LONG = ["--generate", "bursts", "--rate", "15", "--service", "0.15", "--seeds", "200"]


def square(number):
    return number * number


def fail(number):
    raise ConfigError(f"no {number}")


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("processes", [1, 2, 9])
def test_results_come_in_order_and_each_is_told(processes):
    told = []
    found = results_of(square, [3, 1, 2, 5], processes=processes, tell=lambda done, total: told.append((done, total)))
    assert found == [9, 1, 4, 25]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_what_fails_there_fails_here():
    with pytest.raises(ConfigError, match="no 1"):
        results_of(fail, [1, 1, 1], processes=2)


def test_a_process_that_dies_is_told():
    with pytest.raises(DumbwaiterError, match=r"ended by itself \(exit code -9;"):
        results_of(die, [1, 2, 3], processes=2)


def wait_until(probe, *, within):
    asyncio.run(eventually(probe, within=within))


def simulating_of(pid):
    """The processes that *pid* has started and that have heard from it what they are to do, for which they need numpy:
    before that Python itself says on stderr that it has lost its parent.
    """
    found = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [child for child in found if is_running(child) and "numpy" in Path(f"/proc/{child}/maps").read_text()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def planning(tmp_path):
    """A ``dumbwaiter plan`` that takes long, in a group of its own, and those that simulate for it."""
    command = [sys.executable, "-m", "dumbwaiter", "plan", *LONG]
    with (tmp_path / "errors").open("w") as errors:
        ran = subprocess.Popen(command, cwd=tmp_path, stderr=errors, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_until(lambda: len(simulating_of(ran.pid)) >= 2, within=60)
        yield ran, simulating_of(ran.pid), tmp_path / "errors"
    finally:
        ran.kill()
        ran.wait()


@pytest.mark.skipif(sys.platform != "linux" or os.cpu_count() == 1, reason="RULE NOT CHECKED: needs /proc, two cores")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_those_that_simulate_end_with_their_parent(planning, number):
    ran, simulating, errors = planning
    ran.send_signal(number)
    assert ran.wait(10) == -number
    wait_until(lambda: not any(map(is_running, simulating)), within=5)
    assert [line for line in errors.read_text().splitlines() if "runs, about" not in line][1:] == []


@pytest.mark.skipif(sys.platform != "linux" or os.cpu_count() == 1, reason="RULE NOT CHECKED: needs /proc, two cores")
def test_ctrl_c_ends_it_at_once(planning):
    ran, simulating, errors = planning
    at = time.monotonic()
    os.killpg(ran.pid, signal.SIGINT)  # as a terminal does
    assert ran.wait(10) == 130
    assert time.monotonic() - at < 3.0  # far below one second, on a machine with nothing else to do
    wait_until(lambda: not any(map(is_running, simulating)), within=5)
    assert "Traceback" not in errors.read_text()


def test_a_line_comes_now_and_then_and_says_what_is_left():
    now, lines = [0.0], []
    told = Lines(lambda: now[0], lines.append)
    for done, at in enumerate([2.0, 9.9, 12.0, 14.0, 26.9, 27.0, 300.0, 310.0], 1):
        now[0] = at
        told.tell(done, 8)
    assert lines == ["3 of 8 runs, about 20 s left", "6 of 8 runs, about 9 s left", "7 of 8 runs, about 43 s left"]
    told.tell(1, 8)
    now[0] = 400.0
    told.tell(1, 8)
    assert lines[-1] == "1 of 8 runs, about 47 min left"
