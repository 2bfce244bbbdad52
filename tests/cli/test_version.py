"""`dumbwaiter version`."""

from __future__ import annotations

import json
import platform

import dumbwaiter


def test_it_names_dumbwaiter_and_python_for_people(run):
    shown = run("version")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == f"dumbwaiter {dumbwaiter.__version__} (Python {platform.python_version()})\n"


def test_the_flags_that_other_programs_have_do_the_same(run):
    assert run("--version").stdout == run("-V").stdout == run("version").stdout != ""


def test_it_names_them_for_programs(run):
    shown = run("version", "--json")
    assert json.loads(shown.stdout) == {"dumbwaiter": dumbwaiter.__version__, "python": platform.python_version()}
