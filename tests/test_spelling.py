"""What was meant by a name that is written wrongly."""

from __future__ import annotations

from dumbwaiter.spelling import did_you_mean


def test_the_nearest_name_is_asked_for():
    assert did_you_mean("prot", ["port", "host"]) == "; did you mean 'port'?"


def test_where_nothing_is_near_nothing_is_asked():
    assert did_you_mean("colour", ["port", "host"]) == ""
    assert did_you_mean("port", []) == ""
