"""The benchmarks of shared devices run without a GPU, so that they still do when one is at hand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script, *arguments, **environment):
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=50, env=environment)


def test_the_gpu_benchmark_runs_on_a_fake_device_and_all_are_answered():
    ran = run("gpu_sharing.py", "--device", "fake:4GiB", "--only", "activations", "--seconds", "0.5", "--json")
    assert ran.returncode == 0, ran.stderr
    report = msgspec.json.decode(ran.stdout)
    assert report["is_fake"]
    (case,) = report["cases"]
    assert case["out_of_memory"] == 0
    assert [one["model"] for one in case["models"]] == ["pictures-3", "pictures-6"]
    for one in case["models"]:
        assert one["answered"] == one["sent"] > 0
        assert one["alone"] > 0


def test_its_table_says_that_no_gpu_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu_sharing_card import Copies, Size
    from gpu_sharing_table import Case, Report, Together, report_as_markdown

    one = Together(
        model="small",
        alone=10.0,
        rate=4.0,
        sent=9,
        answered=8,
        p99=1.0,
        longest=2.0,
        longest_pause=0.5,
        parks=3,
        wakes=2,
    )
    report = Report(
        device="a fake device of 8 GiB",
        machine="Machine: this one.",
        is_fake=True,
        limit=2**33,
        seconds=1.0,
        took=2.0,
        sizes={"small": Size(target="Fake", parameters={}, weights=2**30, activation=2**31)},
        copies=Copies(to_device=10e9, to_host=10e9, first_park=1e9, park=5e9, wake=7e9),
        cases=[Case(name="activations", models=[one], out_of_memory=1)],
    )
    table = report_as_markdown(report)
    assert table.startswith("**Not a GPU.**")
    assert "| activations: out of memory | 1 | 0 | **no** |" in table
    assert "| activations: not answered | 1 | 0 | **no** |" in table
    assert "| activations: combined rate, of time-sharing | 0.40 | ≥ 0.9 | **no** |" in table
    assert "| wake | 7.0 GB/s, 0.70 of the copy | ≥ 0.8 | **no** |" in table
    assert not report.is_clean


def test_without_a_gpu_it_says_so_in_one_line_and_exits_with_2():
    ran = run("gpu_sharing.py", CUDA_VISIBLE_DEVICES="")
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert re.fullmatch(r"no CUDA device to measure: .+\n", ran.stderr)


def test_the_overhead_of_admission_is_told_for_each_setting():
    ran = run("admission_overhead.py", "--quick", "--json")
    assert ran.returncode == 0, ran.stderr
    rows = msgspec.json.decode(ran.stdout)
    assert [row["name"] for row in rows] == [
        "asked ahead",
        "asked late",
        "asked late, batches take no time",
        "asked late, alone",
        "one at a time, 2 workers",
    ]
    for row in rows:
        assert row["batches"] > 0
        assert 0.0 <= row["p50"] <= row["p99"] <= row["longest"]
