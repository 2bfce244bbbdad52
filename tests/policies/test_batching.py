"""Batching decides by the measured curve: never wait at low load, fill under load, drop what is hopeless."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.batching import (
    LONG_HOLD,
    SHORT_HOLD,
    LatencyCurve,
    Waiting,
    decide_batch,
    decoders_wanted,
    hopeless,
    may_hold_answers,
    most_in_hand,
    pull_size,
    target_size,
    was_nearly_full,
)

seconds = st.floats(min_value=1e-5, max_value=10.0)


def curve_of(fixed: float, each: float, sizes: range = range(1, 17)) -> LatencyCurve:
    curve = LatencyCurve()
    for size in sizes:
        curve.observe(size, fixed + each * size)
    return curve


@given(fixed=seconds, each=seconds)
def test_a_straight_curve_is_found_again(fixed: float, each: float) -> None:
    fitted = curve_of(fixed, each).fit()
    assert fitted is not None
    assert fitted == pytest.approx((fixed, each), rel=1e-3, abs=1e-4 * (fixed + each))


def test_nothing_is_known_before_two_sizes_were_seen() -> None:
    curve = LatencyCurve()
    assert curve.predict(8) == 0.0
    for _ in range(50):
        curve.observe(4, 0.1)
    assert curve.fit() is None
    assert curve.knee() is None
    assert curve.predict(4) == pytest.approx(0.1)


def test_a_changed_model_is_learnt_anew() -> None:
    curve = curve_of(0.001, 0.001)
    for _ in range(40):
        for size in range(1, 17):
            curve.observe(size, 0.1 + 0.01 * size)
    assert curve.fit() == pytest.approx((0.1, 0.01), rel=0.02)


@given(fixed=seconds, each=seconds)
def test_the_knee_gives_95_percent_of_the_best_throughput_and_one_less_does_not(fixed: float, each: float) -> None:
    curve = curve_of(fixed, each)
    knee = curve.knee()
    fitted = curve.fit()
    assert knee is not None
    assert fitted is not None
    a, c = fitted
    best = 1.0 / c
    assert knee / (a + c * knee) >= 0.95 * best * (1 - 1e-9)
    if knee > 1:
        assert (knee - 1) / (a + c * (knee - 1)) < 0.95 * best * (1 + 1e-9)


@given(fixed=seconds, each=seconds, most=st.integers(1, 512), latency=st.none() | seconds)
def test_the_target_is_at_least_one_and_at_most_the_models_limit(
    fixed: float, each: float, most: int, latency: float | None
) -> None:
    assert 1 <= target_size(curve_of(fixed, each), most, latency) <= most


def test_an_idle_device_starts_at_once_with_what_there_is() -> None:
    curve = curve_of(0.005, 0.001)
    decision = decide_batch([Waiting()], 100.0, curve=curve, target=16, idle_since=99.0, arrival_gap=1.0)
    assert decision.run == [0]


def test_it_waits_for_inputs_that_are_being_decoded_when_a_fuller_batch_saves_more() -> None:
    curve = curve_of(0.05, 0.001)
    decision = decide_batch([Waiting()], 100.0, curve=curve, target=16, idle_since=100.0, decoding=3, decode_gap=0.002)
    assert decision.run == []
    assert decision.wait == pytest.approx(0.002)


def test_it_does_not_wait_for_slow_decoding() -> None:
    curve = curve_of(0.001, 0.001)
    decision = decide_batch([Waiting()], 100.0, curve=curve, target=16, idle_since=100.0, decoding=3, decode_gap=0.01)
    assert decision.run == [0]


def test_waiting_ends_when_it_has_cost_what_a_batch_saves() -> None:
    curve = curve_of(0.05, 0.001)
    decision = decide_batch([Waiting()], 100.0, curve=curve, target=16, idle_since=99.94, decoding=3, decode_gap=0.002)
    assert decision.run == [0]


def test_it_does_not_wait_past_a_deadline() -> None:
    curve = curve_of(0.05, 0.001)
    tight = Waiting(deadline=100.0 + 0.0525)
    decision = decide_batch([tight], 100.0, curve=curve, target=16, idle_since=100.0, decoding=3, decode_gap=0.002)
    assert decision.run == [0]


def test_a_redelivered_message_runs_alone() -> None:
    waiting = [Waiting(alone=True), Waiting(), Waiting()]
    assert decide_batch(waiting, 0.0, curve=LatencyCurve(), target=16, idle_since=0.0).run == [0]
    waiting = [Waiting(), Waiting(alone=True), Waiting()]
    assert decide_batch(waiting, 0.0, curve=LatencyCurve(), target=16, idle_since=0.0).run == [0, 2]


def test_a_message_without_a_deadline_is_never_dropped() -> None:
    assert hopeless([Waiting()] * 100, 1e9, curve=curve_of(1.0, 1.0), target=16) == set()


def test_early_drop_gives_up_the_first_so_that_the_rest_succeed_in_a_full_batch() -> None:
    curve = curve_of(0.008, 0.0006)
    soon, later = Waiting(deadline=100.010), Waiting(deadline=100.1)
    decision = decide_batch([soon, *[later] * 31], 100.0, curve=curve, target=16, idle_since=100.0)
    assert decision.drop == [0]
    assert decision.run == list(range(1, 17))


inputs = st.lists(
    st.builds(Waiting, deadline=st.none() | st.floats(min_value=-1, max_value=2), alone=st.booleans()), max_size=40
)


@given(
    waiting=inputs,
    fixed=seconds,
    each=seconds,
    target=st.integers(1, 32),
    decoding=st.integers(0, 5),
    gap=seconds,
    idle=st.floats(min_value=0.0, max_value=3.0),
)
def test_every_decision_is_sound(
    waiting: list[Waiting], fixed: float, each: float, target: int, decoding: int, gap: float, idle: float
) -> None:
    decision = decide_batch(
        waiting,
        0.0,
        curve=curve_of(fixed, each),
        target=target,
        idle_since=-idle,
        decoding=decoding,
        decode_gap=gap,
        arrival_gap=gap,
    )
    assert len(decision.run) <= target
    assert set(decision.run).isdisjoint(decision.drop)
    assert decision.run == sorted(set(decision.run))
    assert all(waiting[index].deadline is not None for index in decision.drop)
    if any(waiting[index].alone for index in decision.run):
        assert len(decision.run) == 1
    if waiting:
        assert decision.run or decision.drop or decision.wait
    if decision.wait:
        assert 0.0 < decision.wait <= gap


def test_idle_pulls_a_whole_helping_and_busy_pulls_ahead_only_from_a_backlog() -> None:
    assert pull_size(0, 16, last_was_full=False) == 16
    assert pull_size(16, 16, last_was_full=False) == 0
    assert pull_size(16, 16, last_was_full=True) == 16
    assert pull_size(31, 16, last_was_full=True) == 0, "not for a crumb"
    assert pull_size(1, 1, last_was_full=True) == 1


@given(in_hand=st.integers(0, 200), helping=st.integers(1, 100), full=st.booleans())
def test_never_more_than_two_helpings_in_hand(in_hand: int, helping: int, full: bool) -> None:
    size = pull_size(in_hand, helping, last_was_full=full)
    assert 0 <= size <= helping
    assert size == 0 or in_hand + size <= 2 * helping


def test_a_receive_is_nearly_full_from_three_quarters_on() -> None:
    assert was_nearly_full(16, 12)
    assert not was_nearly_full(16, 11)
    assert not was_nearly_full(1, 0)


def test_a_slow_one_at_a_time_model_holds_few_messages_and_a_quick_one_many() -> None:
    assert most_in_hand(1, 0.5, max_batch=1, decode_threads=1) == 1
    assert most_in_hand(1, 0.5, max_batch=1, decode_threads=4) == 1, "others could begin the rest"
    assert most_in_hand(1, 0.03, max_batch=1, decode_threads=2) == 2, "while a broker hands out the next one"
    assert most_in_hand(1, 0.5, max_batch=1, decode_threads=4, decode_seconds=1.2) == 3, "else the device would wait"
    assert most_in_hand(1, 0.5, max_batch=1, decode_threads=2, decode_seconds=1.2) == 2
    assert most_in_hand(1, 0.001, max_batch=1, decode_threads=1) == 20
    assert most_in_hand(1, 1e-6, max_batch=1, decode_threads=1) == 64
    assert most_in_hand(8, 0.001, max_batch=16, decode_threads=2) == 8


def test_answers_leave_at_once_when_nothing_else_is_ready() -> None:
    assert not may_hold_answers(SHORT_HOLD, ready=0, seconds_each=1.0)


def test_no_answer_waits_for_an_input_that_takes_longer_than_it_may_be_held() -> None:
    assert not may_hold_answers(0.0, ready=0, seconds_each=0.4)
    assert not may_hold_answers(0.0, ready=3, seconds_each=0.4)
    assert may_hold_answers(0.0, ready=0, seconds_each=SHORT_HOLD / 2)


def test_answers_wait_for_the_next_one_while_the_device_has_work_for_longer_than_a_round_trip() -> None:
    assert may_hold_answers(0.002, ready=5, seconds_each=0.003)
    assert not may_hold_answers(0.002, ready=3, seconds_each=0.003), "its callers' next requests would come too late"


@given(held_for=st.floats(LONG_HOLD, 1e3), ready=st.integers(0, 1000), each=st.floats(0.0, 100.0))
def test_no_answer_is_held_longer_than_the_limit(held_for: float, ready: int, each: float) -> None:
    assert not may_hold_answers(held_for, ready=ready, seconds_each=each)


def test_one_decoder_works_ahead_and_all_of_them_while_the_device_waits() -> None:
    assert decoders_wanted(0, target=1, threads=4) == 4
    assert decoders_wanted(7, target=8, threads=4) == 4
    assert decoders_wanted(8, target=8, threads=4) == 1
    assert decoders_wanted(1, target=1, threads=1) == 1
