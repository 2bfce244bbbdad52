"""A dead runner's cause of death is told truthfully."""

from __future__ import annotations

from pathlib import Path

import pytest

from dumbwaiter.worker.autopsy import EXIT_STICKY, explain, oom_kill_count


def test_a_signal_is_named() -> None:
    cause = explain(-11, oom_before=0, oom_after=0, hung_for=None, stacks="Fatal Python error")
    assert cause.code == "runner-crashed"
    assert cause.message == "the runner was killed by SIGSEGV (segmentation fault)"
    assert cause.detail == "Fatal Python error"


def test_sigkill_is_the_kernels_only_when_its_counter_moved() -> None:
    killed = explain(-9, oom_before=4, oom_after=5, hung_for=None, stacks="")
    assert killed.code == "out-of-memory-killed"
    by_hand = explain(-9, oom_before=4, oom_after=4, hung_for=None, stacks="")
    assert by_hand.code == "runner-crashed"
    assert "SIGKILL" in by_hand.message
    untold = explain(-9, oom_before=None, oom_after=None, hung_for=None, stacks="")
    assert untold.code == "runner-crashed"


def test_a_hang_is_called_a_hang_whatever_signal_ended_it() -> None:
    cause = explain(-9, oom_before=0, oom_after=1, hung_for=3.25, stacks="Thread 0x1\n  File x")
    assert cause.code == "runner-hung"
    assert "3.2 s" in cause.message or "3.3 s" in cause.message
    assert "File x" in cause.detail


def test_a_runner_that_ended_itself_names_its_device_as_the_cause() -> None:
    cause = explain(EXIT_STICKY, oom_before=0, oom_after=0, hung_for=None, stacks="")
    assert cause.code == "device-error"
    assert "error of the device" in cause.message
    assert explain(1, oom_before=0, oom_after=0, hung_for=None, stacks="").code == "runner-crashed"
    assert explain(EXIT_STICKY, oom_before=0, oom_after=0, hung_for=3.0, stacks="").code == "runner-hung"


@pytest.mark.parametrize(
    ("cgroups", "place", "text"),
    [
        ("0::/pod/worker\n", "pod/worker/memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\n"),
        ("4:memory:/pod/worker\n1:cpu:/\n", "memory/pod/worker/memory.oom_control", "under_oom 0\noom_kill 2\n"),
        ("3:cpu:/x\n0::/pod/worker\n", "unified/pod/worker/memory.events", "oom_kill 2\n"),
    ],
)
def test_the_kernels_counter_is_read_in_both_versions_of_control_groups(
    tmp_path: Path, cgroups: str, place: str, text: str
) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert oom_kill_count(cgroups, tmp_path) == 2


def test_without_a_counter_nothing_is_claimed(tmp_path: Path) -> None:
    assert oom_kill_count("0::/\n", tmp_path) is None
