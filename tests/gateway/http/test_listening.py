"""No more connections are promised than the process may have files open."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys

import pytest

from dumbwaiter.gateway.http.listening import FILES_BESIDE, connections_within

PROGRAM = """
import logging, resource, sys
logging.basicConfig(format="%(message)s", stream=sys.stdout)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, int(sys.argv[1])))
from dumbwaiter.gateway.http.listening import connections_within
print(connections_within(4096))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def lines_with(hard: int) -> list[str]:
    """What a process with that hard limit says; this one keeps its own."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM, str(hard)], capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()


def test_the_soft_limit_is_raised_to_the_hard_one():
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 4500:
        pytest.skip("the limit of this machine is too low")
    assert lines_with(4500) == ["4096", "4500"]


def test_where_that_does_not_suffice_fewer_connections_are_served_and_both_numbers_are_said():
    warning, served, limit = lines_with(1024)
    assert (served, limit) == (str(1024 - FILES_BESIDE), "1024")
    assert "4096" in warning
    assert "1024" in warning


def test_what_fits_is_not_spoken_of(caplog):
    with caplog.at_level(logging.WARNING):
        assert connections_within(10) == 10
    assert not caplog.records
