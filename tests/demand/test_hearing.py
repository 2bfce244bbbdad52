"""How long ago workers were heard of, whatever the clocks of their machines say."""

from __future__ import annotations

import math

import pytest

from dumbwaiter.blobs.presence import WorkerStatus
from dumbwaiter.demand.hearing import AHEAD, Hearing

WALL = 1_000_000.0


def said(*moments: float) -> list[WorkerStatus]:
    return [
        WorkerStatus(worker=f"w{number}", model="cats", state="ready", announced_at=at)
        for number, at in enumerate(moments)
    ]


def test_at_first_sight_it_is_as_old_as_is_written_there():
    _, silence = Hearing().after(said(WALL - 7.0, WALL - 700.0, WALL + 1.0), wall=WALL, now=50.0)
    assert silence == {"w0": 7.0, "w1": 700.0, "w2": 0.0}


def test_what_is_dated_ahead_is_nobody_until_it_changes():
    ahead = WALL + AHEAD + 3600.0
    hearing, silence = Hearing().after(said(ahead), wall=WALL, now=50.0)
    assert silence == {"w0": math.inf}
    hearing, silence = hearing.after(said(ahead), wall=WALL + 4000.0, now=4050.0)
    assert silence == {"w0": math.inf}, "nor when its moment has come"
    hearing, silence = hearing.after(said(ahead + 5.0), wall=WALL + 4002.0, now=4052.0)
    assert silence["w0"] <= 2.0
    _, silence = hearing.after(said(ahead + 5.0), wall=WALL, now=4072.0)
    assert silence["w0"] >= 20.0, "however its clock or ours is set"


def test_one_whose_clock_is_late_is_heard_of_when_it_changes():
    late = WALL - 3600.0
    hearing, silence = Hearing().after(said(late), wall=WALL, now=50.0)
    assert silence == {"w0": 3600.0}
    hearing, silence = hearing.after(said(late + 5.0), wall=WALL + 2.0, now=52.0)
    assert silence == {"w0": pytest.approx(2.0)}, "within the time since the last look"


def test_one_whose_clock_is_right_is_as_old_as_it_says_also_after_a_long_pause():
    hearing, _ = Hearing().after(said(WALL), wall=WALL, now=50.0)
    hearing, silence = hearing.after(said(WALL + 10.0), wall=WALL + 60.0, now=110.0)
    assert silence == {"w0": pytest.approx(50.0)}
    hearing, silence = hearing.after([], wall=WALL + 61.0, now=111.0)
    assert silence == {} == hearing.heard
