"""What came to a queue, told from counts that never quite agree."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.demand.inflow import FORGOTTEN_AFTER, MOST_EACH, WINDOW, Inflow, most_each

OLD: frozenset[str] = frozenset()


def followed(*looks, inflow: Inflow | None = None, start: float = 0.0, every: float = 2.0, young=OLD):
    """What came by each of *looks*: the number there, and what each worker has settled."""
    inflow, came = inflow or Inflow(), []
    for number, (there, settled) in enumerate(looks):
        inflow, new = inflow.after(there, settled, start + number * every, young=young)
        came.append(new)
    return inflow, came


def test_the_first_look_has_nothing_to_compare_with():
    assert followed((500, {"a": 1000}))[1] == [0]


def test_what_is_there_more_has_come():
    assert followed((0, {}), (500, {}), (510, {}))[1] == [0, 500, 10]


def test_what_came_and_was_settled_between_two_looks_has_come_too():
    assert followed((5, {"a": 100}), (5, {"a": 160}))[1] == [0, 60]


def test_a_burst_that_is_worked_off_has_come_once_although_workers_tell_late():
    looks = [(0, {"a": 0}), (500, {"a": 0}), (300, {"a": 0}), (100, {"a": 0}), (0, {"a": 0}), (0, {"a": 500})]
    assert followed(*looks)[1] == [0, 500, 0, 0, 0, 0]


def test_in_a_steady_stream_the_total_is_right_whatever_the_worker_tells_when():
    """Ten a second come and go; the worker tells every 6 s, the queue is looked at every 2 s."""
    looks = [(3, {"a": 60 * (number // 3)}) for number in range(30)]
    assert sum(followed(*looks)[1]) == 60 * 9


def test_a_worker_that_starts_counts_from_the_beginning_and_one_that_was_not_heard_of_does_not():
    inflow, _ = followed((100, {}))
    assert inflow.after(50, {"new": 50}, 2.0, young=frozenset({"new"}))[1] == 0
    assert inflow.after(50, {"new": 60}, 2.0, young=frozenset({"new"}))[1] == 10
    assert inflow.after(100, {"sleeper": 1_000_000}, 2.0, young=OLD)[1] == 0, "it slept through a look, for 20 s"


def test_what_a_worker_settled_stays_settled_when_it_leaves():
    inflow, came = followed((100, {"a": 0}), (50, {"a": 50}), (50, {}), (50, {}))
    assert came == [0, 0, 0, 0]
    _, came = followed((60, {}), inflow=inflow, start=8.0)
    assert came == [10]


def test_one_that_comes_back_goes_on_where_it_was():
    looks = [(100, {"a": 0}), (50, {"a": 50}), (50, {}), (40, {"a": 60})]
    assert followed(*looks)[1] == [0, 0, 0, 0]


def test_a_purge_is_forgiven():
    inflow, came = followed((1000, {}), (0, {}), (10, {}))
    assert came == [0, 0, 0]
    inflow, _ = inflow.after(10, {}, WINDOW + 5.0, young=OLD)
    assert inflow.after(20, {}, WINDOW + 7.0, young=OLD)[1] == 10


def test_after_a_long_pause_it_is_compared_with_the_last_look():
    inflow, _ = followed((10, {}))
    assert inflow.after(25, {}, 10_000.0, young=OLD)[1] == 15


def test_workers_that_are_long_gone_are_forgotten_and_what_they_did_is_not():
    inflow, _ = followed((100, {"a": 0}), (0, {"a": 100}))
    inflow, came = inflow.after(0, {"b": 0}, FORGOTTEN_AFTER + 10.0, young=frozenset({"b"}))
    assert (set(inflow.workers), came) == ({"b"}, 0)


def test_what_no_worker_can_have_settled_does_not_count_now_or_later():
    most = most_each(0.5)
    inflow, _ = followed((10, {"a": 100}))
    inflow, came = inflow.after(10, {"a": 9 * 10**15}, 2.0, young=OLD, most_each=most)
    assert 0 < came <= 16 + 8 * 7
    for number in range(5):
        inflow, came = inflow.after(10, {"a": 9 * 10**15 + number}, 4.0 + 2 * number, young=OLD, most_each=most)
        assert came <= 1
    _, came = inflow.after(10, {"a": 9 * 10**15 + 14}, 16.0, young=OLD, most_each=most)
    assert came == 10, "what it tells from then on does"
    _, came = Inflow(sums=((0.0, 0),)).after(0, {"b": 9 * 10**15}, 600.0, young=frozenset({"b"}), most_each=most)
    assert came <= 16 + 8 * 20
    assert most_each(None) == most_each(0.0) == MOST_EACH


steps = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans(), st.floats(0.1, 5.0)), min_size=1, max_size=60
)


@given(steps)
def test_never_more_comes_than_came(steps):
    """*came* arrive, at most *done* are settled, and the worker *tells* now or later."""
    inflow, now, there, settled, told, sent, counted = Inflow(), 0.0, 0, 0, 0, 0, 0
    inflow, _ = inflow.after(0, {"a": 0}, now, young=OLD)
    for came, done, tells, pause in steps:
        now += pause
        there, sent = there + came, sent + came
        gone = min(done, there)
        there, settled = there - gone, settled + gone
        told = settled if tells else told
        inflow, new = inflow.after(there, {"a": told}, now, young=OLD)
        counted += new
        if now <= WINDOW:
            assert counted <= sent
    if now <= WINDOW:
        inflow, new = inflow.after(there, {"a": settled}, now, young=OLD)
        assert counted + new == sent
