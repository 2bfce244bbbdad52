"""The pauses between two looks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.polling import QUICK, STREAM, WATCH, Pace, fitted, next_pause

PACES = pytest.mark.parametrize("pace", [QUICK, STREAM, WATCH])


def pauses(pace):
    pause = None
    while True:
        pause = next_pause(pace, pause, found=False)
        yield pause


@PACES
def test_pauses_grow_from_the_first_to_the_last(pace):
    made = list(itertools.islice(pauses(pace), 30))
    assert made[0] == pace.first
    assert made[1] == pytest.approx(1.5 * pace.first)
    assert made == sorted(made)
    assert made[-1] == pace.last


@PACES
def test_whoever_has_found_something_looks_again_soon(pace):
    assert next_pause(pace, pace.last, found=True) == pace.first


@given(patience=st.floats(0.05, 100), last=st.floats(0.02, 50))
def test_the_last_look_comes_just_before_the_end_of_patience(patience, last):
    pace = Pace(0.01, last)
    now = latest = 0.0
    for pause in pauses(pace):
        now += fitted(pause, pace, patience - now)
        if now > patience:
            break
        latest = now
    assert patience - latest <= 2 * pace.first
