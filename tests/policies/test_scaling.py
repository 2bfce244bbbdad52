"""How many workers: what the formulas ask for, what time makes of it, and what never happens whatever is seen."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dumbwaiter.policies.scaling import (
    COLD_STARTS,
    Decision,
    History,
    Look,
    Offered,
    Rules,
    arrivals,
    decide,
    lacks,
    work_ahead,
)

IDLE = Look(waiting=0, in_flight=0, oldest_age=0.0, arrived=0, seconds_each=0.1, ready=0, starting=0)

counts = st.integers(0, 2000)
spans = st.floats(0.1, 300.0)
looks = st.builds(
    Look,
    waiting=counts,
    in_flight=st.one_of(st.none(), st.integers(0, 200)),
    oldest_age=st.one_of(st.none(), st.floats(0.0, 600.0)),
    arrived=counts,
    seconds_each=st.one_of(st.none(), st.floats(0.0, 20.0)),
    ready=st.integers(0, 40),
    starting=st.integers(0, 40),
)
rules = st.builds(
    Rules,
    max_replicas=st.integers(5, 50),
    min_replicas=st.integers(0, 5),
    signal=st.sampled_from(["work", "messages"]),
    drain_target=spans,
    spare=st.floats(0.0, 4.0),
    age_target=spans,
    messages_each=st.floats(0.5, 10.0),
    scale_in_after=spans,
    idle_after=spans,
    cold_start=st.one_of(st.just(0.0), spans),
)
pauses = st.floats(0.0, 100.0)
shows = st.lists(st.tuples(pauses, looks), min_size=1, max_size=12)


def seen(**facts) -> Look:
    return dataclasses.replace(IDLE, **facts)


def first(look: Look, its: Rules) -> Decision:
    """What is decided by a watcher that has just begun."""
    return decide(History(), look, its, 1000.0)[1]


def told(history: History, look: Look, its: Rules, now: float, *, seconds: float, every: float = 2.0):
    """The same look again and again for so many seconds; the history, the last decision and the time."""
    decision = None
    for _ in range(int(seconds / every)):
        now += every
        history, decision = decide(history, look, its, now)
    assert decision is not None
    return history, decision, now


# --- whatever is seen ---


@given(shows, rules)
def test_what_is_desired_stays_within_the_bounds_or_what_is_there(show, its):
    history, now = History(), 0.0
    for pause, look in show:
        now += pause
        history, decision = decide(history, look, its, now)
        assert its.min_replicas <= decision.raw <= its.max_replicas
        assert decision.desired <= max(its.max_replicas, look.current)
        assert decision.desired >= min(its.min_replicas, look.current) or decision.desired >= its.min_replicas
        assert decision.why


@given(shows, rules)
def test_whatever_waits_or_runs_has_at_least_one_worker(show, its):
    history, now = History(), 0.0
    for pause, look in show:
        now += pause
        history, decision = decide(history, look, its, now)
        if look.waiting or look.in_flight:
            assert decision.desired >= 1


@given(shows, rules)
def test_a_look_that_is_repeated_at_the_same_moment_changes_nothing(show, its):
    history, now = History(), 0.0
    for pause, look in show:
        now += pause
        history, decision = decide(history, look, its, now)
    again, same = decide(history, dataclasses.replace(look, arrived=0), its, now)
    assert (same.desired, same.raw, again.offered) == (decision.desired, decision.raw, history.offered)


@given(looks, looks, rules, st.integers(1, 1000), st.floats(0.1, 60.0))
def test_more_that_waits_never_asks_for_fewer(before, look, its, more, pause):
    assume(look.seconds_each is not None)
    history, _ = decide(History(), before, its, 0.0)
    less = decide(history, look, its, pause)[1]
    rest = dataclasses.replace(look, waiting=look.waiting + more)
    assert decide(history, rest, its, pause)[1].raw >= less.raw


@given(looks, looks, rules, st.floats(0.1, 60.0))
def test_a_cold_start_never_takes_away_what_the_load_alone_needs(before, look, its, pause):
    """What waits may be done before a new worker is there, but what comes goes on coming."""
    assume(look.seconds_each is not None and its.signal == "work" and not look.is_idle)
    history, _ = decide(History(), before, its, 0.0)
    decision = decide(history, look, its, pause)[1]
    staffing = math.ceil(decision.offered + its.spare * math.sqrt(decision.offered))
    assert decision.raw >= min(staffing, its.max_replicas)


@given(shows, rules)
def test_a_history_remembers_no_more_than_it_needs(show, its):
    history, now = History(), 0.0
    for pause, look in show:
        now += pause
        history, _ = decide(history, look, its, now)
        kept = [count for _, count in history.wanted]
        assert kept == sorted(set(kept), reverse=True)


@given(shows, rules)
def test_fewer_come_only_when_no_look_of_the_window_wanted_more(show, its):
    history, now, wanted = History(), 0.0, []
    window = max(its.scale_in_after, COLD_STARTS * its.cold_start)
    for pause, look in show:
        now += pause
        history, decision = decide(history, look, its, now)
        wanted.append((now, decision.raw))
        if decision.desired < look.current and decision.why != "idle":
            assert all(raw <= max(decision.desired, 1) for at, raw in wanted if now - at <= window)


@given(st.lists(st.tuples(st.floats(0.01, 30.0), st.floats(0.0, 100.0)), min_size=1))
def test_the_offered_load_lies_between_the_least_and_the_most_that_came(steps):
    offered = Offered()
    for seconds, load in steps:
        offered = offered.after(seconds, load * seconds)
    assert 0.0 <= offered.load <= max(load for _, load in steps) * (1 + 1e-9)


@given(counts, counts, counts)
def test_arrivals_are_what_there_is_more_and_what_has_left(before, after, settled):
    came = arrivals(before=before, after=after, settled=settled)
    assert came == max(0, after + settled - before)


# --- by work ---


def test_what_waits_is_to_be_done_within_the_drain_target():
    decision = first(seen(waiting=500, ready=1), Rules(max_replicas=100, drain_target=5.0))
    assert (decision.desired, decision.why, decision.work) == (10, "backlog", 50.0)


def test_what_waits_is_not_to_be_done_sooner_than_a_worker_comes():
    its = Rules(max_replicas=100, drain_target=5.0, cold_start=20.0)
    decision = first(seen(waiting=1000), its)
    assert (decision.desired, decision.why) == (5, "backlog"), "100 s of work within the 20 s of a cold start"


def test_what_runs_counts_half():
    assert work_ahead(seen(waiting=10, in_flight=4)) == pytest.approx(1.2)


def test_the_load_that_comes_has_square_root_staffing():
    """4 workers' worth that comes and never waits: 4 + 3*sqrt(4)."""
    its = Rules(max_replicas=100)
    look = seen(in_flight=4, arrived=80, ready=4)
    history, _ = decide(History(), look, its, 0.0)
    _, decision, _ = told(history, look, its, 0.0, seconds=600)
    assert decision.offered == pytest.approx(4.0)
    assert (decision.raw, decision.why) == (10, "load")


def test_a_lump_in_the_first_look_is_no_load_of_many_workers():
    """The counters of workers come every 5 s, so that one of the first looks shows what came in several."""
    history, _ = decide(History(), seen(ready=1, in_flight=1), Rules(max_replicas=100), 0.0)
    _, decision = decide(history, seen(ready=1, in_flight=1, arrived=50), Rules(max_replicas=100), 2.0)
    assert decision.offered < 0.6, "5 s of work that came within 10 s at the least, not within 2"


def test_while_nothing_was_measured_one_worker_finds_out():
    decision = first(seen(waiting=10_000, seconds_each=None), Rules(max_replicas=100))
    assert (decision.desired, decision.why, decision.work) == (1, "in use", 0.0)


def test_nobody_is_ordered_for_what_those_that_serve_have_done_before_he_is_there():
    its = Rules(max_replicas=100, drain_target=5.0, cold_start=60.0)
    decision = first(seen(waiting=1500, in_flight=2, ready=2), its)
    assert (decision.desired, decision.why) == (2, "cold start"), "of 150 s of work two do 120 s within a start of 60 s"
    its = dataclasses.replace(its, cold_start=5.0)
    assert first(seen(waiting=500, in_flight=2, ready=2), its).desired == 9


def test_a_cold_start_is_no_reason_to_have_too_few_for_the_load():
    its = Rules(max_replicas=100, cold_start=60.0)
    steady = seen(in_flight=4, arrived=80, ready=6)
    history, _ = decide(History(), steady, its, 0.0)
    history, decision, now = told(history, steady, its, 0.0, seconds=600)
    assert decision.raw == 10
    for waiting in (100, 1000, 3000, 4000, 5000):
        assert decide(history, dataclasses.replace(steady, waiting=waiting), its, now + 2.0)[1].raw >= 10


def test_load_that_came_orders_nobody_while_nothing_is_there():
    its = Rules(max_replicas=100, idle_after=300.0)
    busy = seen(in_flight=4, arrived=80, ready=4)
    history, _ = decide(History(), busy, its, 0.0)
    history, _, now = told(history, busy, its, 0.0, seconds=60)
    _, decision = decide(history, seen(ready=2), its, now + 2.0)
    assert decision.desired == 2
    _, decision = decide(history, IDLE, its, now + 2.0)
    assert decision.desired == 0


# --- the age guard ---


def test_one_more_comes_when_the_oldest_waits_although_there_seems_to_be_no_work():
    late = seen(waiting=1, in_flight=1, oldest_age=30.0, seconds_each=0.001, ready=1)
    decision = first(late, Rules(max_replicas=9))
    assert (decision.desired, decision.why) == (2, "age")


def test_that_is_told_once_those_that_serve_had_the_time_to_do_what_waits():
    """What waits may be old because nobody served before."""
    its, history, alarms = Rules(max_replicas=9, drain_target=5.0), History(), []
    for now in (0.0, 2.0, 4.0, 6.0):
        late = seen(waiting=1, in_flight=1, oldest_age=30.0 + now, seconds_each=0.001, ready=2)
        history, decision = decide(history, late, its, now)
        alarms.append(decision.alarm.partition(",")[0])
    assert alarms == ["", "", "", "the oldest message has waited 36 s"]
    history, _ = decide(history, IDLE, its, 8.0)
    _, decision = decide(history, late, its, 10.0)
    assert decision.alarm == "", "it is another one"


def test_one_message_that_nobody_can_answer_brings_one_more_and_not_one_after_the_other():
    its, history, current = Rules(max_replicas=30), History(), 1
    for step in range(300):
        stuck = seen(waiting=1, oldest_age=2.0 * step, seconds_each=0.15, ready=current)
        history, decision = decide(history, stuck, its, 2.0 * step)
        current = decision.desired
    assert current == 2
    assert decision.alarm


@pytest.mark.parametrize("facts", [{"oldest_age": 5.0}, {"starting": 1}, {"waiting": 5000, "seconds_each": 1.0}])
def test_it_does_not_when_it_is_not_late_or_somebody_comes_anyway(facts):
    late = {"waiting": 1, "in_flight": 1, "oldest_age": 30.0, "seconds_each": 0.001, "ready": 2, **facts}
    assert first(seen(**late), Rules(max_replicas=9)).why != "age"


def test_where_no_worker_is_heard_of_one_that_is_there_all_the_same_is_not_waited_for():
    nobody = seen(waiting=1, oldest_age=30.0, seconds_each=0.1)
    decision = first(nobody, Rules(max_replicas=9))
    assert (decision.raw, decision.why) == (2, "age")
    assert decision.alarm.startswith("the oldest message has waited 30 s, and no worker is heard of")
    assert first(nobody, Rules(max_replicas=9, cold_start=25.0)).raw == 1, "it may be on its way"
    assert first(dataclasses.replace(nobody, starting=1), Rules(max_replicas=9)).raw == 1


def test_a_look_that_asks_for_nobody_says_that_nothing_waits():
    decision = first(IDLE, Rules(max_replicas=9))
    assert (decision.desired, decision.why) == (0, "nothing waits")


# --- numbers that may be anything ---

anything = st.floats(allow_nan=True, allow_infinity=True)
hostile_looks = st.builds(
    Look,
    waiting=st.integers(-(10**400), 10**400),
    in_flight=st.one_of(st.none(), st.integers(-(10**400), 10**400)),
    oldest_age=st.one_of(st.none(), anything),
    arrived=st.integers(-(10**400), 10**400),
    seconds_each=st.one_of(st.none(), anything),
    ready=st.integers(0, 40),
    starting=st.integers(0, 40),
)
hostile_rules = st.builds(
    Rules,
    max_replicas=st.integers(5, 50),
    signal=st.sampled_from(["work", "messages"]),
    drain_target=st.floats(min_value=5e-324),
    spare=anything,
    age_target=st.floats(min_value=5e-324),
    messages_each=st.floats(min_value=5e-324),
    cold_start=anything,
)


@given(st.lists(st.tuples(pauses, hostile_looks), min_size=1, max_size=5), hostile_rules, looks)
def test_no_number_makes_a_decision_fail_and_the_next_sound_look_is_decided_soundly(show, its, sound):
    history, now = History(), 0.0
    for pause, look in show:
        now += pause
        history, decision = decide(history, look, its, now)
        assert 0 <= decision.desired <= max(its.max_replicas, look.current)
        assert math.isfinite(decision.offered)
        assert math.isfinite(decision.work)
    assert decide(history, sound, dataclasses.replace(its, signal="work"), now + 1.0)[1].desired >= 0


# --- by the other signals ---


def test_by_messages_those_that_wait_and_run_are_shared_out():
    its = Rules(max_replicas=100, signal="messages", messages_each=2.0)
    assert first(seen(waiting=7, in_flight=2), its).desired == 5
    assert first(seen(waiting=7, in_flight=None), its).desired == 4


def test_by_age_those_that_serve_are_as_many_times_more_as_it_is_too_old():
    its = Rules(max_replicas=100, signal="age", age_target=10.0)
    assert first(seen(waiting=9, oldest_age=25.0, ready=2), its).desired == 5
    assert first(seen(waiting=9, oldest_age=1.0), its).desired == 1


def test_by_age_what_is_on_its_way_is_not_multiplied_again():
    its = Rules(max_replicas=100, signal="age", age_target=10.0)
    history, look = History(), seen(waiting=9, oldest_age=20.0, ready=1)
    for second in range(20):
        history, decision = decide(history, look, its, float(second))
        look = dataclasses.replace(look, starting=decision.desired - 1)
    assert decision.desired == 2, "it was ordered once, and the boot takes its time"


@pytest.mark.parametrize(
    ("signal", "facts", "unknown"),
    [
        ("work", {"waiting": None}, "how many messages wait"),
        ("messages", {"waiting": None}, "how many messages wait"),
        ("age", {"oldest_age": None}, "how long the oldest message has waited"),
    ],
)
def test_what_the_broker_does_not_tell_is_named_and_nothing_is_guessed(signal, facts, unknown):
    its = Rules(max_replicas=3, signal=signal)
    assert lacks(seen(**facts), its) == unknown
    with pytest.raises(ValueError, match=unknown):
        decide(History(), seen(**facts), its, 0.0)


@pytest.mark.parametrize(("signal", "facts"), [("work", {"oldest_age": None}), ("age", {"waiting": None})])
def test_what_the_signal_does_not_follow_may_be_unknown(signal, facts):
    assert lacks(seen(**facts), Rules(max_replicas=3, signal=signal)) is None


# --- over time ---


def test_more_come_at_once_and_fewer_after_the_window():
    its = Rules(max_replicas=100, scale_in_after=60.0, spare=0.0)
    history, decision = decide(History(), seen(waiting=500, ready=1), its, 0.0)
    assert decision.desired == 10
    quiet = seen(in_flight=1, seconds_each=0.1, ready=10)
    history, decision, now = told(history, quiet, its, 0.0, seconds=60)
    assert decision.desired == 10
    history, decision, now = told(history, quiet, its, now, seconds=4)
    assert decision.desired == 1


def test_the_window_is_three_cold_starts_if_that_is_longer():
    its = Rules(max_replicas=100, scale_in_after=10.0, cold_start=60.0)
    quiet = seen(in_flight=1, ready=5)
    history, _ = decide(History(), quiet, its, 0.0)
    history, decision, now = told(history, quiet, its, 0.0, seconds=178)
    assert decision.desired == 5
    _, decision, _ = told(history, quiet, its, now, seconds=6)
    assert decision.desired == 1


def test_the_last_one_stays_until_it_was_idle_for_long_enough():
    its = Rules(max_replicas=3, idle_after=30.0, scale_in_after=0.0)
    idle = seen(ready=1)
    history, _ = decide(History(), idle, its, 0.0)
    history, decision, now = told(history, idle, its, 0.0, seconds=28)
    assert decision.desired == 1
    _, decision, _ = told(history, idle, its, now, seconds=2)
    assert (decision.desired, decision.why) == (0, "idle")


def test_short_work_that_no_look_ever_meets_keeps_the_last_one():
    its = Rules(max_replicas=3, idle_after=30.0, scale_in_after=0.0)
    history, _ = decide(History(), seen(ready=1), its, 0.0)
    history, decision, now = told(history, seen(ready=1, arrived=2, seconds_each=0.01), its, 0.0, seconds=500)
    assert decision.desired == 1
    history, decision, now = told(history, seen(ready=1), its, now, seconds=28)
    assert decision.desired == 1
    assert told(history, seen(ready=1), its, now, seconds=2)[1].desired == 0


def test_what_runs_is_not_idle_and_what_nobody_can_count_is_neither():
    its = Rules(max_replicas=3, idle_after=0.0)
    for busy in (seen(in_flight=1, ready=1), seen(in_flight=None, ready=1)):
        history, _ = decide(History(), busy, its, 0.0)
        assert told(history, busy, its, 0.0, seconds=500)[1].desired == 1


def test_one_message_after_the_idle_time_brings_one_back_at_once():
    its = Rules(max_replicas=3, idle_after=0.0)
    history, decision = decide(History(), IDLE, its, 0.0)
    assert decision.desired == 0
    assert decide(history, seen(waiting=1, arrived=1), its, 0.1)[1].desired == 1


def test_with_a_least_number_it_never_goes_below():
    its = Rules(max_replicas=3, min_replicas=2, idle_after=0.0, scale_in_after=0.0)
    history, decision = decide(History(), seen(ready=3), its, 0.0)
    _, decision, _ = told(history, seen(ready=3), its, 0.0, seconds=10)
    assert decision.desired == 2


def test_a_load_around_a_step_does_not_make_it_swing():
    """Requests that alternate between one and three workers' worth: the larger number stays."""
    its = Rules(max_replicas=100, scale_in_after=30.0, spare=0.0)
    history, now, current, changes = History(), 0.0, 1, 0
    for step in range(300):
        now += 2.0
        waiting = 150 if step % 5 == 0 else 1
        history, decision = decide(history, seen(waiting=waiting, in_flight=1, arrived=20, ready=current), its, now)
        changes += decision.desired != current
        current = decision.desired
    assert changes <= 3


def test_a_load_that_hovers_at_a_step_of_the_staffing_keeps_whom_it_called():
    """Square-root staffing asks for 4 at 1.0 and for 5 a little above; for hours the load swings between the two."""
    its, load = Rules(max_replicas=100, scale_in_after=20.0), 1.0
    assert math.ceil(load * 0.97 + 3 * math.sqrt(load * 0.97)) < math.ceil(load * 1.03 + 3 * math.sqrt(load * 1.03))
    history, current, changes = History(), 4, 0
    for step in range(2000):
        swing = 1.0 + 0.1 * math.sin(2 * math.pi * step * 2.0 / 300.0)
        look = seen(in_flight=1, arrived=round(20 * swing), ready=current)
        history, decision = decide(history, look, its, 2.0 * step)
        changes += decision.desired != current
        current = decision.desired
    assert changes <= 2
