"""The command as process 1 of a container; here of a process namespace."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from dumbwaiter.testing import eventually
from processes import environment, make_project

#: Becomes process 1 of a new namespace, in which /proc shows it.
UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
#: A worker whose work leaves a grandchild behind that ends a moment later.
LEAVES_SOME = """
import os, subprocess, sys
from dumbwaiter.cli.first_process import work_as_child_of_process_1
work_as_child_of_process_1()
assert os.getpid() != 1
left = subprocess.run([sys.executable, "-c", "import subprocess; print(subprocess.Popen(['true']).pid)"], stdout=-1)
orphan = int(left.stdout)
from dumbwaiter.testing import eventually
import asyncio
asyncio.run(eventually(lambda: not os.path.exists(f"/proc/{orphan}"), within=10.0, what="an end without a zombie"))
sys.exit(7)
"""
DIES = """
import os, signal
from dumbwaiter.cli.first_process import work_as_child_of_process_1
work_as_child_of_process_1()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True, scope="module")
def may_make_namespaces():
    if (
        shutil.which("unshare") is None
        or subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("RULE NOT CHECKED: this user may not make process namespaces")


def run(program):
    command = [*UNSHARE, sys.executable, "-c", program]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=40, check=False)


def test_what_others_leave_behind_is_taken_in_and_the_exit_code_is_the_workers():
    done = run(LEAVES_SOME)
    assert (done.returncode, done.stderr) == (7, "")


def test_a_worker_that_is_killed_is_told_as_a_shell_tells_it():
    assert run(DIES).returncode == 128 + signal.SIGKILL


def start_worker(folder):
    command = [*UNSHARE, sys.executable, "-m", "dumbwaiter", "worker", "light:Shout"]
    with (folder / "log").open("wb") as log:
        known = environment(DUMBWAITER_HEARTBEAT="beat")
        return subprocess.Popen(command, cwd=make_project(folder), env=known, stdout=log, stderr=log)


def is_ready(folder):
    beat = folder / "beat"
    return beat.exists() and '"ready"' in beat.read_text()


@pytest.mark.anyio
async def test_sigterm_reaches_the_worker_which_drains_and_exits_with_0(tmp_path):
    process = start_worker(tmp_path)
    try:
        await eventually(lambda: is_ready(tmp_path), within=30.0, what="a ready worker")
        (first,) = psutil.Process(process.pid).children()
        (worker,) = first.children()
        first.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert not worker.is_running()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def test_any_other_process_goes_on_as_it_is():
    program = "import os; from dumbwaiter.cli import first_process as f; before = os.getpid();"
    program += " f.work_as_child_of_process_1(); assert os.getpid() == before; print('same')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=40, check=False)
    assert (done.returncode, done.stdout) == (0, "same\n")


def test_a_terminals_ctrl_c_is_for_the_worker_alone():
    """It leads the terminal's group, so that process 1 does not pass on what it has heard itself."""
    program = """
import os, pty, sys
def session():
    from dumbwaiter.cli.first_process import work_as_child_of_process_1
    work_as_child_of_process_1()
    print("leads", os.tcgetpgrp(0) == os.getpgrp() == os.getpid(), flush=True)
    os._exit(0)
if os.getpid() != 1:
    sys.exit("not first")
import fcntl, termios
main, side = pty.openpty()
os.setsid()
fcntl.ioctl(side, termios.TIOCSCTTY, 0)
os.dup2(side, 0)
session()
"""
    done = run(program)
    assert (done.returncode, done.stdout) == (0, "leads True\n"), done.stderr
