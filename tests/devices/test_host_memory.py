"""What Linux tells of memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from kernel_files import machine, unified

from dumbwaiter.devices.contract import DeviceError
from dumbwaiter.devices.host_memory import (
    Group,
    group_folders,
    kib_fields,
    limiting_groups,
    machine_memory,
    own_tree,
    process_tree,
    proportional,
    total_resident,
)

SLICE = Path("/sys/fs/cgroup/user.slice")


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "folders"),
    [
        (
            "0::/user.slice/app.scope\n",
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            [(SLICE / "app.scope", 2), (SLICE, 2), (SLICE.parent, 2)],
        ),
        # A container with a cgroup namespace of its own, and one without, whose paths are those of the host.
        ("0::/\n", "30 23 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n", [(SLICE.parent, 2)]),
        ("0::/kube/pod1/c1\n", "30 23 0:26 /kube/pod1/c1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n", [(SLICE.parent, 2)]),
        ("0::/../c2\n", "30 23 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n", [(SLICE.parent, 2)]),
        (
            "8:pids:/\n4:memory:/docker/abc\n0::/\n",
            "35 31 0:32 /docker /cg/memory rw - cgroup cgroup rw,memory\n41 31 0:38 / /cg/unified rw - cgroup2 c rw\n",
            [(Path("/cg/memory/abc"), 1), (Path("/cg/memory"), 1)],
        ),
        ("0::/\n", "22 1 8:1 / / rw - ext4 /dev/vda rw\n", []),
        ("", "short\n", []),
    ],
)
def test_the_groups_around_a_process_are_found_from_the_innermost_on(cgroup, mountinfo, folders):
    assert group_folders(cgroup, mountinfo) == folders


def test_a_groups_use_leaves_out_the_file_pages_that_go_first(tmp_path):
    proc = machine(tmp_path, total=1000, available=800)
    unified(proc / "groups/a/b", 300 * 1024, 200_000, 50_000)
    unified(proc / "groups/a", "max", 1, 0)
    assert limiting_groups(proc) == [Group(proc / "groups/a/b", 300 * 1024, 150_000)]


def test_the_older_interface_counts_its_largest_number_as_no_limit(tmp_path):
    proc = machine(tmp_path, total=1000, available=800, cgroup="4:memory:/a/b\n", kind="cgroup", options="rw,memory")
    for folder, limit in ((proc / "groups/a/b", 9223372036854771712), (proc / "groups/a", 500 * 1024)):
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (folder / "memory.usage_in_bytes").write_text("1000\n")
        (folder / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 400\n")
    assert limiting_groups(proc) == [Group(proc / "groups/a", 500 * 1024, 600)]


def test_a_group_that_does_not_tell_its_use_is_an_error(tmp_path):
    proc = machine(tmp_path, total=1000, available=800)
    unified(proc / "groups/a/b", 300, 200, 50)
    (proc / "groups/a/b/memory.stat").write_text("anon 5\n")
    with pytest.raises(
        DeviceError, match=r"memory.stat does not tell inactive_file; declare the memory to use instead"
    ):
        limiting_groups(proc)


def test_the_machines_memory_is_what_the_kernel_says():
    found = machine_memory()
    assert found.total == psutil.virtual_memory().total
    assert 0 < found.available <= found.total
    assert all(group.used >= 0 and group.folder.is_dir() for group in limiting_groups())


def test_lines_without_a_size_are_passed_over():
    assert kib_fields("Name:\tpython 3 kB\nVmRSS:\t  12 kB\nThreads:\t3\n\n") == {"VmRSS": 12 * 1024}


def test_a_process_tree_is_the_process_with_all_its_descendants():
    grandchild = "import time; print('here', flush=True); time.sleep(60)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"here\n"
            family = {one.pid for one in psutil.Process(process.pid).children(recursive=True)}
            assert set(process_tree(process.pid)) == {process.pid, *family}
            assert len(family) == 1
            assert proportional(process_tree(process.pid)) > proportional(list(family)) > 0
        finally:
            for pid in process_tree(process.pid)[1:]:
                os.kill(pid, 9)
            process.kill()


def test_a_process_that_is_gone_takes_nothing():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert proportional([process.pid]) == total_resident([process.pid]) == 0


def test_a_kernel_that_does_not_tell_a_living_processs_memory_is_an_error(tmp_path):
    (tmp_path / "7").mkdir()
    with pytest.raises(FileNotFoundError, match="smaps_rollup"):
        proportional([7], tmp_path)


def test_a_process_without_children_is_a_tree_of_one():
    script = "import os; from dumbwaiter.devices.host_memory import own_tree; print(own_tree() == [os.getpid()])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"True\n"


def test_a_process_with_a_child_that_has_ended_and_one_that_lives_is_a_tree_of_both():
    with subprocess.Popen(["sleep", "60"]) as living, subprocess.Popen(["true"]) as ended:
        try:
            os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
            assert {os.getpid(), living.pid} <= set(own_tree())
            assert proportional(own_tree()) > proportional([os.getpid()]) > 0
        finally:
            living.kill()
