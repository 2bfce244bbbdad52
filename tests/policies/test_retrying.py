"""A failed attempt is judged by its kind and by how often the message was delivered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.retrying import (
    LOAD_PAUSE,
    LONGEST_DELAY,
    TRANSIENT_DELIVERIES,
    Answer,
    Fault,
    GiveUp,
    Retry,
    back_off,
    before_next_load,
    judge,
    most_deliveries,
    must_be_alone,
)

luck = st.floats(min_value=0.0, max_value=1.0, exclude_max=True)


@given(count=st.integers(1, 50), most=st.integers(1, 20), luck=luck)
def test_a_permanent_error_is_given_up_at_once(count: int, most: int, luck: float) -> None:
    assert judge(Fault.PERMANENT, count, max_deliveries=most, luck=luck) == GiveUp()


@given(count=st.integers(1, 50), most=st.integers(1, 20), luck=luck)
def test_an_unknown_error_is_tried_again_until_max_deliveries(count: int, most: int, luck: float) -> None:
    verdict = judge(Fault.UNKNOWN, count, max_deliveries=most, luck=luck)
    assert isinstance(verdict, GiveUp if count >= most else Retry)


def test_a_load_that_fails_leaves_a_shared_device_to_others_for_several_times_as_long():
    assert before_next_load(1, luck=0.0, held=0.0) == back_off(1, luck=0.0, first=1.0)
    assert before_next_load(1, luck=0.0, held=4.0) == 4.0 * LOAD_PAUSE
    assert before_next_load(30, luck=0.99, held=0.0) <= LONGEST_DELAY
    assert before_next_load(1, luck=0.0, held=3600.0) == LONGEST_DELAY


def test_a_transient_error_is_given_more_tries() -> None:
    assert isinstance(judge(Fault.TRANSIENT, 5, max_deliveries=3, luck=0.0), Retry)
    assert judge(Fault.TRANSIENT, TRANSIENT_DELIVERIES, max_deliveries=3, luck=0.0) == GiveUp()


def test_a_missed_deadline_is_answered_and_leaves_no_dead_letter() -> None:
    assert judge(Fault.EXPIRED, 1, max_deliveries=3, luck=0.0) == Answer()


@given(count=st.integers(1, 9), luck=luck)
def test_whoever_waits_hears_the_reason_before_the_deadline_when_no_further_try_would_end_before_it(
    count: int, luck: float
) -> None:
    delay = back_off(count, luck=luck)
    assert judge(Fault.TRANSIENT, count, max_deliveries=3, luck=luck, time_left=1.9 * delay) == GiveUp()
    assert judge(Fault.TRANSIENT, count, max_deliveries=3, luck=luck, time_left=2.1 * delay) == Retry(delay=delay)
    assert judge(Fault.TRANSIENT, count, max_deliveries=3, luck=luck) == Retry(delay=delay)


def test_a_message_may_be_delivered_as_often_as_the_most_patient_fault_allows() -> None:
    assert most_deliveries(3) == TRANSIENT_DELIVERIES
    assert most_deliveries(50) == 50


@given(attempt=st.integers(1, 10_000), luck=luck)
def test_back_off_grows_to_its_limit_and_never_beyond(attempt: int, luck: float) -> None:
    assert 0.0 < back_off(attempt, luck=luck) <= LONGEST_DELAY
    assert back_off(attempt + 1, luck=luck) >= back_off(attempt, luck=luck)


def test_from_the_second_delivery_on_a_message_runs_alone() -> None:
    assert not must_be_alone(1)
    assert must_be_alone(2)
