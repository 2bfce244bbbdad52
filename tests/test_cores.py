"""As many cores as the machine lets a process use, and no more than its container pays for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dumbwaiter import cores as module
from dumbwaiter.cores import cores


@pytest.fixture
def container(tmp_path, monkeypatch):
    """Write what a container's cpu.max says; 8 cores are there."""
    monkeypatch.setattr(module, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    return (tmp_path / "cpu.max").write_text


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1), ("1600000 100000", 8), ("max 100000", 8)],
)
def test_a_containers_quota_counts_as_whole_cores_and_one_at_least(container, quota, expected):
    container(f"{quota}\n")
    assert cores() == expected


@pytest.mark.parametrize("quota", ["", "0 0", "nonsense"])
def test_a_quota_that_nobody_can_read_is_none(container, quota):
    container(quota)
    assert cores() == 8


def test_without_a_container_it_is_what_the_machine_has(container):
    assert cores() == 8


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="RULE NOT CHECKED: no affinity on this system")
def test_one_that_is_bound_to_a_core_has_one():
    bound = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from dumbwaiter.cores import cores"
    ran = subprocess.run([sys.executable, "-c", f"{bound}; print(cores())"], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "1"
