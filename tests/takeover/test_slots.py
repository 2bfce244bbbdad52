"""A slot belongs to one living process, and is free once that is dead."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dumbwaiter import file_systems
from dumbwaiter.takeover import slots
from dumbwaiter.takeover.slots import take_free
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

#: Takes a slot, says which, and waits; on a line of input it starts a child that outlives it, and says its number.
HOLDER = """
import pathlib, subprocess, sys, time
from dumbwaiter.takeover.slots import take_free

(slot,) = take_free(pathlib.Path(sys.argv[1]))
slot.write(0, b"mine")
print(slot.path.name, flush=True)
for line in sys.stdin:
    print(subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).pid, flush=True)
"""


@pytest.fixture
def holder(tmp_path):
    """Starts processes that hold a slot of the folder."""
    processes = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def names(taken):
    return [slot.path.name for slot in taken]


def close(taken):
    for slot in taken:
        slot.close()


def test_the_first_slot_is_number_0_and_lies_in_a_folder_of_this_user_alone(tmp_path):
    taken = take_free(tmp_path / "deep" / "slots")
    assert names(taken) == ["slot-0"]
    assert (tmp_path / "deep" / "slots").stat().st_mode & 0o777 == 0o700
    assert taken[0].path.stat().st_mode & 0o777 == 0o600
    close(taken)


def test_two_consumers_of_one_process_have_two_slots(tmp_path):
    first, second = take_free(tmp_path), take_free(tmp_path)
    assert names([*first, *second]) == ["slot-0", "slot-1"]
    close(first)
    third = take_free(tmp_path)
    assert names(third) == ["slot-0"]
    close([*second, *third])


def test_all_slots_that_nobody_holds_are_taken_at_once(tmp_path):
    several = [take_free(tmp_path)[0] for _ in range(12)]
    close(several[:2] + several[9:])
    taken = take_free(tmp_path)
    assert names(taken) == ["slot-0", "slot-1", "slot-9", "slot-10", "slot-11"]
    close([*several, *taken])


def test_what_lies_in_a_slot_stays_when_it_is_let_go(tmp_path):
    (slot,) = take_free(tmp_path)
    slot.write(0, b"abcdef")
    slot.write(2, b"XY")
    slot.close()
    slot.close()
    (again,) = take_free(tmp_path)
    assert again.read(100) == b"abXYef"
    assert again.read(3) == b"abX"
    again.empty()
    assert again.read(100) == b""
    again.close()


async def test_the_slot_of_a_living_process_is_not_taken_and_that_of_a_killed_one_is(tmp_path, holder):
    process, name = holder()
    assert name == "slot-0"
    other = take_free(tmp_path)
    assert names(other) == ["slot-1"]
    close(other)
    process.kill()
    process.wait()
    taken = take_free(tmp_path)
    assert names(taken) == ["slot-0", "slot-1"]
    assert taken[0].read(100) == b"mine"
    close(taken)


async def test_the_slot_of_a_stopped_process_is_not_taken(tmp_path, holder):
    process, _ = holder()
    process.send_signal(signal.SIGSTOP)
    taken = take_free(tmp_path)
    assert names(taken) == ["slot-1"]
    close(taken)
    process.send_signal(signal.SIGCONT)


async def test_a_child_that_outlives_its_parent_does_not_keep_its_slot(tmp_path, holder):
    process, _ = holder()
    process.stdin.write("\n")
    process.stdin.flush()
    orphan = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        taken = take_free(tmp_path)
        assert names(taken) == ["slot-0"]
        close(taken)
        os.kill(orphan, 0)  # it lives
    finally:
        os.kill(orphan, signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_forked_child_does_not_keep_the_slot_of_its_parent(tmp_path):
    (slot,) = take_free(tmp_path)
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:

        def is_free() -> bool:
            again = take_free(tmp_path)
            close(again)
            return names(again)[0] == "slot-0"

        slot.close()
        # The child closes its copy before it runs anything of ours; nobody says when.
        await eventually(is_free, within=10.0, what="the slot")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)  # noqa: ASYNC222 - it was killed


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_nor_one_that_nobody_refers_to(tmp_path):
    take_free(tmp_path)
    gc.collect()
    child = os.fork()
    if child == 0:
        os._exit(str(tmp_path / "slot-0") in {os.path.realpath(fd) for fd in Path("/proc/self/fd").iterdir()})
    _, status = os.waitpid(child, 0)
    close([slot for slot in slots._open if slot.path.parent == tmp_path])
    assert os.waitstatus_to_exitcode(status) == 0, "the child has its file open"


def test_a_link_or_a_folder_in_the_place_of_a_slot_is_passed_over(tmp_path):
    (tmp_path / "slot-0").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "slot-1").mkdir()
    (tmp_path / "slot-02").touch()
    taken = take_free(tmp_path)
    assert names(taken) == ["slot-2"]
    assert not (tmp_path / "elsewhere").exists()
    close(taken)


def test_a_slot_knows_its_file_wherever_that_is_moved_and_no_copy_of_it(tmp_path):
    (slot,) = take_free(tmp_path / "slots")
    shutil.copytree(tmp_path / "slots", tmp_path / "copy", copy_function=shutil.copy2)
    (tmp_path / "slots").rename(tmp_path / "moved")
    slot.close()
    (moved,), (copy,) = take_free(tmp_path / "moved"), take_free(tmp_path / "copy")
    assert moved.file == slot.file
    assert copy.file != slot.file
    close([moved, copy])


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path, mode):
    """What they wrote down there would be handed back in our name."""
    (tmp_path / "slots").mkdir()
    (tmp_path / "slots").chmod(mode)
    with pytest.raises(PermissionError, match=r"others may write to .*chmod go-w"):
        take_free(tmp_path / "slots")


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    with pytest.raises(PermissionError, match=r"not to this one \(4321\)"):
        take_free(tmp_path)


def test_a_slot_that_others_may_write_to_is_passed_over_and_that_is_said(tmp_path, caplog):
    close(take_free(tmp_path))
    (tmp_path / "slot-0").chmod(0o666)
    taken = take_free(tmp_path)
    assert names(taken) == ["slot-1"]
    assert caplog.text.count("slot-0 is passed over: ") == 1
    close(taken)


def test_a_folder_that_other_machines_may_share_is_refused(tmp_path, monkeypatch):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/export {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(file_systems, "_MOUNTS", mounts)
    with pytest.raises(OSError, match=r"network file system \(nfs4\)"):
        take_free(tmp_path / "slots")


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        take_free(tmp_path / "file" / "slots")


def test_there_is_an_end_to_slots(tmp_path, monkeypatch):
    monkeypatch.setattr(slots, "MOST_SLOTS", 2)
    taken = [*take_free(tmp_path), *take_free(tmp_path)]
    with pytest.raises(OSError, match="all 2 slots"):
        take_free(tmp_path)
    close(taken)
