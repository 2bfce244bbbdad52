"""The host's memory as a device."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
from kernel_files import machine, unified

from dumbwaiter.devices.contract import DeviceError
from dumbwaiter.devices.host import HostAllocator, HostDevice
from dumbwaiter.devices.host_memory import machine_memory
from dumbwaiter.errors import ConfigError

MIB = 2**20


def test_a_host_is_as_large_as_its_machine_where_no_group_limits_it(tmp_path):
    device = HostDevice(proc=machine(tmp_path, total=1000, available=800))
    assert (device.kind, device.name, device.address) == ("host", "host", "host")
    assert (device.capacity, device.used()) == (1000 * 1024, 200 * 1024)
    assert not device.frees_late
    assert device.environment() == {}


def test_a_host_is_as_large_as_the_tightest_group_around_it(tmp_path):
    proc = machine(tmp_path, total=1000, available=800)
    unified(proc / "groups/a", 300 * 1024, 100 * 1024, 0)
    unified(proc / "groups/a/b", 400 * 1024, 70 * 1024, 0)
    device = HostDevice(proc=proc)
    assert device.capacity == 300 * 1024
    assert device.used() == 100 * 1024
    assert device.name == f"host-cgroup-{(proc / 'groups/a').stat().st_ino}"


def test_what_the_machine_has_left_counts_where_that_is_less_than_the_groups_room(tmp_path):
    proc = machine(tmp_path, total=1000, available=50)
    unified(proc / "groups/a/b", 300 * 1024, 100 * 1024, 0)
    assert HostDevice(proc=proc).used() == 250 * 1024


def test_a_budget_is_full_only_when_the_machine_has_less_left(tmp_path):
    proc = machine(tmp_path, total=1000, available=800)
    device = HostDevice(600 * 1024, proc=proc)
    assert (device.name, device.address, device.capacity) == ("host", "host:614400", 600 * 1024)
    assert device.used() == 0
    (proc / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 100 kB\n")
    assert device.used() == 500 * 1024


def test_a_budget_above_what_there_is_is_refused_with_both_figures(tmp_path):
    proc = machine(tmp_path, total=1000, available=800)
    with pytest.raises(ConfigError, match="host:1024001 is no part of the 1024000 bytes that this machine has; write"):
        HostDevice(1024001, proc=proc)
    unified(proc / "groups/a/b", 300, 100, 0)
    with pytest.raises(ConfigError, match=r"the 300 bytes that the control group .*/groups/a/b may use"):
        HostDevice(301, proc=proc)


def test_a_host_whose_memory_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(DeviceError, match=r"cannot read how much memory there is: .*meminfo.*; is .* mounted\?"):
        HostDevice(proc=tmp_path)


def test_this_host_has_memory_of_which_a_part_is_used():
    device = HostDevice()
    assert device.capacity <= machine_memory().total
    assert 0 < device.used() < device.capacity


def run(script):
    """What *script* prints, in a process of its own: its memory is nobody else's."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50)
    return [int(word) for word in done.stdout.split()]


def test_memory_that_a_model_takes_is_reserved_until_it_is_freed():
    before, during, after = run(
        "from dumbwaiter.devices.host import HostAllocator\n"
        "allocator = HostAllocator(); allocator.open_context(); allocator.synchronize(); allocator.empty_cache()\n"
        "print(allocator.reserved()); x = bytearray(b'x') * (100 << 20)\n"
        "print(allocator.reserved()); del x; allocator.empty_cache(); print(allocator.reserved())"
    )
    assert during - before == pytest.approx(100 * MIB, abs=8 * MIB)
    assert after - before == pytest.approx(0, abs=8 * MIB)


def test_what_the_c_library_keeps_of_freed_memory_is_given_back():
    kept, given_back = run(
        "import ctypes; from dumbwaiter.devices.host import HostAllocator\n"
        "c = ctypes.CDLL(None); c.malloc.restype = ctypes.c_void_p; allocator = HostAllocator()\n"
        "blocks = [c.malloc(60_000) for _ in range(1000)]\n"
        "for block in blocks: ctypes.memset(ctypes.c_void_p(block), 1, 60_000)\n"
        "for block in blocks[:-1]: c.free(ctypes.c_void_p(block))\n"
        "print(allocator.reserved()); allocator.empty_cache(); print(allocator.reserved())"
    )
    assert kept - given_back > 40 * MIB


def test_a_peak_between_two_looks_is_seen_and_can_be_forgotten():
    start, reserved, peak, peak_after_reset = run(
        "from dumbwaiter.devices.host import HostAllocator\n"
        "allocator = HostAllocator(); print(allocator.reserved()); x = bytearray(b'x') * (100 << 20); del x\n"
        "print(allocator.reserved(), allocator.peak()); allocator.reset_peak(); print(allocator.peak())"
    )
    assert reserved - start == pytest.approx(0, abs=8 * MIB)
    assert peak - start == pytest.approx(100 * MIB, abs=8 * MIB)
    assert peak_after_reset - start == pytest.approx(0, abs=8 * MIB)


def test_pages_that_forked_helpers_share_with_the_model_count_once():
    alone, with_helpers = run(
        "import os, signal\nfrom dumbwaiter.devices.host import HostAllocator\n"
        "x = bytearray(b'x') * (100 << 20); allocator = HostAllocator(); print(allocator.reserved())\n"
        "pids = []\n"
        "for _ in range(3):\n"
        "    pid = os.fork()\n"
        "    if not pid: signal.pause()\n"
        "    pids.append(pid)\n"
        "print(allocator.reserved())\n"
        "for pid in pids: os.kill(pid, signal.SIGKILL)\n"
    )
    assert with_helpers - alone == pytest.approx(0, abs=20 * MIB)


def test_only_the_hosts_own_lack_of_memory_is_its_own_and_nothing_is_sticky():
    allocator = HostAllocator()
    assert allocator.is_out_of_memory(MemoryError())
    assert not allocator.is_out_of_memory(RuntimeError("CUDA out of memory"))
    assert not allocator.is_sticky(RuntimeError("CUDA error: device-side assert triggered"))


def test_all_pages_are_gone_through_for_a_small_part_of_the_time(monkeypatch):
    counted, clock = [], [0.0]

    def takes_a_second(pids):
        clock[0] += 1.0
        counted.append(clock[0])
        return 50 * MIB

    monkeypatch.setattr("dumbwaiter.devices.host_memory.proportional", takes_a_second)
    monkeypatch.setattr("dumbwaiter.devices.host_memory.own_tree", lambda: [1])
    monkeypatch.setattr("dumbwaiter.devices.host_memory.total_resident", lambda pids: int(clock[0]) * MIB)
    monkeypatch.setattr("dumbwaiter.devices.host.time", SimpleNamespace(monotonic=lambda: clock[0]))
    allocator = HostAllocator()
    clock[0] = 100.0
    assert allocator.reserved() == 149 * MIB
    assert counted == [1.0]
    clock[0] = 101.0
    assert allocator.reserved() == 50 * MIB
    assert counted == [1.0, 102.0]


def test_memory_that_the_kernel_does_not_tell_is_an_error_with_the_next_step(monkeypatch):
    def refused():
        raise PermissionError(13, "Permission denied", "/proc/self/clear_refs")

    monkeypatch.setattr("dumbwaiter.devices.host_memory.reset_resident_peak", refused)
    with pytest.raises(
        DeviceError, match=r"cannot measure this process's memory: .*clear_refs.*; the footprint can be"
    ):
        HostAllocator()
