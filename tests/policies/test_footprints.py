"""A footprint is a decayed maximum per shape and size: what is granted holds the worst shape, and corrects itself."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.policies.admission import Rung
from dumbwaiter.policies.footprints import (
    ENDLESS,
    GUESS,
    HALF_LIFE,
    LIVE,
    MIB,
    MOST_BUCKETS,
    MOST_SIZES,
    RAN_OUT_LIFE,
    SLACK,
    Footprint,
    Measured,
    Observation,
    activation,
    ladder,
    next_probe,
    observed,
    seconds,
)

NOW = 1_800_000_000.0
GIB = 1 << 30

nbytes_of = st.integers(min_value=0, max_value=80 * GIB)
moments = st.floats(min_value=0.0, max_value=2 * NOW)
observations = st.builds(
    Observation,
    bucket=st.sampled_from(["224", "512", "1024"]),
    size=st.integers(min_value=1, max_value=40),
    nbytes=nbytes_of,
    seconds=st.floats(min_value=0.0, max_value=60.0),
    is_exact=st.booleans(),
    is_out_of_memory=st.booleans(),
)
histories = st.lists(st.tuples(observations, moments), min_size=1, max_size=30)


def after(history: list[tuple[Observation, float]], footprint: Footprint | None = None) -> Footprint:
    footprint = footprint or Footprint()
    for observation, now in history:
        footprint = observed(footprint, observation, now)
    return footprint


def exact(size: int, nbytes: int, took: float = 0.01, bucket: str = "224") -> Observation:
    return Observation(bucket, size, nbytes, took, is_exact=True)


def at_most(size: int, nbytes: int, took: float = 0.01, bucket: str = "224") -> Observation:
    return Observation(bucket, size, nbytes, took)


def ran_out(size: int, nbytes: int = 0, bucket: str = "224") -> Observation:
    return Observation(bucket, size, nbytes, 0.0, is_out_of_memory=True)


def measured(*needs: Observation) -> Footprint:
    return after([(need, NOW) for need in needs])


def kept(footprint: Footprint, size: int = 1, bucket: str = "224") -> int:
    return footprint.batches[bucket][size].nbytes


def granted(need: float) -> int:
    return math.ceil(1.1 * need) + SLACK


# --- what is kept ---


@given(known=nbytes_of, now_needed=nbytes_of, age=st.floats(min_value=0.0, max_value=1e9))
def test_a_larger_need_counts_at_once_and_a_smaller_one_never_takes_all_of_the_old(known, now_needed, age) -> None:
    footprint = after([(exact(1, known), NOW), (exact(1, now_needed), NOW + age)])
    assert now_needed <= kept(footprint) <= max(known, now_needed)


def test_a_smaller_need_brings_it_half_the_way_down_for_each_half_life() -> None:
    footprint = after([(exact(1, 900 * MIB), NOW), (exact(1, 100 * MIB), NOW + HALF_LIFE)])
    assert kept(footprint) == 500 * MIB
    assert kept(observed(footprint, exact(1, 100 * MIB), NOW + 3 * HALF_LIFE)) == 200 * MIB


def test_how_often_one_looks_does_not_change_how_fast_it_decays() -> None:
    often = after([(exact(1, GIB), NOW), *((exact(1, 0), NOW + step) for step in range(1, int(HALF_LIFE) + 1))])
    assert kept(often) == pytest.approx(GIB / 2, rel=1e-5)


def test_a_clock_that_is_put_back_lowers_nothing() -> None:
    assert kept(after([(exact(1, GIB), NOW), (exact(1, 0), NOW - 1e6)])) == GIB


def test_a_bound_on_a_size_not_known_is_taken_for_its_need() -> None:
    assert kept(measured(at_most(4, GIB)), 4) == GIB


def test_what_was_only_bounded_gives_way_at_once_to_whatever_is_closer() -> None:
    assert kept(measured(at_most(1, 8 * GIB), at_most(1, 2 * GIB))) == 2 * GIB
    assert kept(measured(at_most(1, 8 * GIB), exact(1, GIB))) == GIB
    assert kept(measured(at_most(1, GIB), exact(1, 8 * GIB))) == 8 * GIB


def test_a_larger_bound_changes_no_bytes_nor_holds_up_the_decay() -> None:
    start = measured(exact(1, 900 * MIB))
    later = observed(start, at_most(1, 8 * GIB), NOW + HALF_LIFE - 1)
    assert kept(later) == 900 * MIB
    assert kept(observed(later, exact(1, 100 * MIB), NOW + HALF_LIFE)) == 500 * MIB


def test_a_smaller_bound_lowers_what_was_measured_slowly() -> None:
    footprint = after([(exact(1, 900 * MIB), NOW), (at_most(1, 100 * MIB), NOW + HALF_LIFE)])
    assert kept(footprint) == 500 * MIB


def test_a_cache_that_a_large_batch_left_does_not_make_a_new_shape_look_large() -> None:
    probed = measured(exact(1, 510 * MIB), exact(32, 820 * MIB))
    small_ones = observed(probed, at_most(1, 8 * GIB, bucket="64"), NOW + 1)
    small_ones = observed(small_ones, at_most(2, 8 * GIB, bucket="64"), NOW + 2)
    assert activation(small_ones, 32, NOW + 2) == granted(820 * MIB)


@given(history=histories, last=observations.filter(lambda one: not one.is_exact and not one.is_out_of_memory))
def test_a_bound_never_raises_a_size_that_is_known(history, last) -> None:
    before = after(history)
    known = before.batches.get(last.bucket, {}).get(last.size)
    now = max(moment for _, moment in history)
    then = observed(before, last, now).batches[last.bucket][last.size].nbytes
    assert then <= (last.nbytes if known is None else known.nbytes)


@given(st.floats(min_value=0.01, max_value=1.0), st.integers(min_value=1, max_value=100))
def test_seconds_are_smoothed_and_stay_between_those_seen(new, count) -> None:
    footprint = after([(exact(1, 0, 0.01), NOW), *[(exact(1, 0, new), NOW)] * count])
    assert 0.01 <= seconds(footprint, 1) <= new * (1 + 1e-9)
    assert seconds(footprint, 1) == pytest.approx(new - (new - 0.01) * 0.8**count)


# --- running out of memory ---


@given(
    capacity=st.integers(min_value=64 * MIB, max_value=192 * GIB),
    size=st.integers(min_value=1, max_value=64),
    first=st.none() | st.integers(min_value=0, max_value=GIB),
)
def test_running_out_again_and_again_ends_at_any_capacity_within_few_steps(capacity, size, first) -> None:
    footprint = Footprint() if first is None else measured(exact(size, first))
    steps = 0
    while (activation(footprint, size, NOW) or SLACK) <= capacity:
        footprint = observed(footprint, ran_out(size), NOW)
        steps += 1
    assert steps <= math.ceil(math.log(capacity / SLACK, 1.5)) + 1


@given(history=histories, got_to=nbytes_of, size=st.integers(min_value=1, max_value=40))
def test_after_running_out_it_is_granted_half_as_much_again_as_it_had(history, got_to, size) -> None:
    before = after(history)
    now = max(moment for _, moment in history)
    then = activation(observed(before, ran_out(size, got_to), now), size, now)
    assert then is not None
    assert then >= min(1.5 * max(got_to, activation(before, size, now) or 0), ENDLESS)


def test_one_input_alone_gets_all_there_is_in_the_end_and_is_never_guessed_to_need_more() -> None:
    footprint = measured(exact(1, GIB))
    for got_to in (GIB, 2 * GIB, *[7 * GIB] * 20):
        footprint = observed(footprint, ran_out(1, got_to), NOW, room=7 * GIB)
    assert kept(footprint) == 7 * GIB
    assert activation(footprint, 1, NOW, room=7 * GIB) == 7 * GIB


def test_larger_batches_that_keep_running_out_are_no_longer_asked_for_until_a_day_has_passed() -> None:
    room = 7 * GIB
    footprint = measured(exact(1, GIB), exact(2, 2 * GIB), exact(4, 4 * GIB))
    for _ in range(3):
        footprint = observed(footprint, ran_out(4), NOW, room=room)

    def sizes(now: float) -> list[int]:
        return [rung.size for rung in ladder(footprint, 4, now, room=room) if rung.nbytes <= room]

    assert sizes(NOW) == [1, 2]
    footprint = observed(footprint, exact(1, GIB), NOW + RAN_OUT_LIFE + 1)
    assert sizes(NOW + RAN_OUT_LIFE + 1) == [1, 2, 4]


def test_what_is_known_only_from_running_out_still_counts_after_a_day() -> None:
    assert activation(measured(ran_out(1, GIB)), 1, NOW + 2 * RAN_OUT_LIFE) == granted(1.5 * GIB)


def test_running_out_without_end_can_still_be_written_down() -> None:
    footprint = after([(ran_out(8), NOW)] * 500)
    assert kept(footprint, 8) == ENDLESS
    assert msgspec.json.decode(msgspec.json.encode(footprint), type=Footprint) == footprint


def test_the_seconds_of_a_batch_that_ran_out_are_not_counted() -> None:
    assert seconds(measured(exact(1, 0, 2.0), ran_out(1), ran_out(2)), 1) == 2.0


# --- what is granted ---


def test_nothing_is_known_before_anything_was_measured() -> None:
    empty = Footprint()
    assert activation(empty, 1, NOW) is None
    assert seconds(empty, 1) == GUESS
    assert ladder(empty, 8, NOW) == ()
    assert next_probe(empty, 8) == 1


@given(history=histories, now=moments, room=st.none() | nbytes_of)
def test_a_larger_batch_is_never_granted_less(history, now, room) -> None:
    footprint = after(history)
    needs = [activation(footprint, size, now, room=room) for size in range(1, 100)]
    assert None not in needs
    assert needs == sorted(needs)


@given(history=histories, now=moments, most=st.integers(min_value=1, max_value=200), room=st.none() | nbytes_of)
def test_a_ladder_goes_up_and_reaches_twice_what_is_known(history, now, most, room) -> None:
    footprint = after(history)
    rungs = ladder(footprint, most, now, room=room)
    sizes = [rung.size for rung in rungs]
    assert sizes[0] == 1
    assert sizes == sorted(set(sizes))
    assert sizes[-1] <= min(most, 2 * max(size for known in footprint.batches.values() for size in known))
    assert [rung.nbytes for rung in rungs] == sorted(rung.nbytes for rung in rungs)
    assert [rung.nbytes for rung in rungs[1:]] == [activation(footprint, size, now, room=room) for size in sizes[1:]]
    assert [rung.seconds for rung in rungs] == [seconds(footprint, size) for size in sizes]


@given(history=histories)
def test_each_live_need_fits_into_what_is_granted(history) -> None:
    moment = max(now for _, now in history)
    footprint = after([(observation, moment) for observation, _ in history])
    for sizes in footprint.batches.values():
        for size, one in sizes.items():
            given_it = activation(footprint, size, moment)
            assert given_it is not None
            assert given_it >= min(one.nbytes + SLACK, ENDLESS)


def test_between_sizes_needs_are_linear_and_below_the_smallest_the_same() -> None:
    footprint = measured(exact(2, 200 * MIB), exact(6, 1000 * MIB))
    assert [activation(footprint, size, NOW) for size in (1, 3, 4)] == [granted(need * MIB) for need in (200, 400, 600)]


def test_beyond_the_largest_it_grows_by_the_steepest_slope_and_at_least_in_proportion() -> None:
    steep = measured(exact(1, 100 * MIB), exact(2, 300 * MIB), exact(4, 320 * MIB))
    assert activation(steep, 8, NOW) == granted((320 + 4 * 200) * MIB)
    assert activation(measured(exact(4, 400 * MIB)), 8, NOW) == granted(800 * MIB)


def test_the_worst_shape_decides() -> None:
    footprint = measured(exact(1, 100 * MIB), exact(1, 700 * MIB, bucket="1024"))
    assert activation(footprint, 1, NOW) == granted(700 * MIB)


def test_a_larger_shape_seen_once_is_taken_to_grow_as_those_measured_further() -> None:
    """Both have 500 MiB that do not grow, and one takes 10 and the other 40 MiB for each input."""
    probed = measured(exact(1, 510 * MIB), exact(32, 820 * MIB))
    footprint = observed(probed, exact(1, 540 * MIB, bucket="1024"), NOW)
    needed = (540 - 510) * 32 + 820
    assert activation(footprint, 32, NOW) == granted(needed * MIB)
    assert needed == 500 + 40 * 32


def test_a_shape_not_seen_for_an_hour_counts_again_when_it_comes_back() -> None:
    small, large = exact(1, 100 * MIB), exact(1, 700 * MIB, bucket="1024")
    then = NOW + LIVE + 1
    footprint = after([(large, NOW), (small, then)])
    assert activation(footprint, 1, then) == granted(100 * MIB)
    assert kept(footprint, bucket="1024") == 700 * MIB
    back = observed(footprint, at_most(1, 9 * GIB, bucket="1024"), then + 1)
    assert activation(back, 1, then + 1) == granted(700 * MIB)


def test_after_a_night_without_work_nothing_is_forgotten() -> None:
    footprint = measured(exact(1, 100 * MIB), exact(1, 700 * MIB, bucket="1024"))
    assert activation(footprint, 1, NOW + 1e6) == granted(700 * MIB)


def test_the_margin_alone_makes_no_batch_too_large_for_the_device() -> None:
    footprint = measured(exact(1, 98 * MIB), exact(2, 196 * MIB))
    assert activation(footprint, 1, NOW, room=100 * MIB) == 100 * MIB
    assert activation(footprint, 2, NOW, room=100 * MIB) == 196 * MIB
    assert ladder(footprint, 2, NOW, room=50 * MIB)[0].nbytes == 50 * MIB


def test_a_declared_total_is_one_rung_of_what_is_left_of_it() -> None:
    footprint = Footprint(context=GIB // 2, weights=GIB)
    assert ladder(footprint, 8, NOW, declared=3 * GIB) == (Rung(8, 3 * GIB // 2, GUESS),)
    assert ladder(footprint, 8, NOW, declared=GIB) == (Rung(8, MIB, GUESS),)


# --- seconds ---


def test_seconds_are_linear_between_sizes_and_beyond_them() -> None:
    footprint = measured(exact(1, 0, 0.010), exact(4, 0, 0.016), exact(8, 0, 0.024))
    assert [seconds(footprint, size) for size in (1, 2, 6, 15)] == pytest.approx([0.010, 0.012, 0.020, 0.038])
    assert seconds(measured(exact(2, 0, 0.1)), 1) == 0.1
    assert seconds(measured(exact(2, 0, 0.1)), 6) == pytest.approx(0.3)


def test_the_shape_seen_last_counts_most_for_the_seconds() -> None:
    footprint = after([(exact(1, 0, 1.0, bucket="1024"), NOW), (exact(1, 0, 0.1), NOW + 2 * HALF_LIFE)])
    assert seconds(footprint, 1) == pytest.approx((0.1 + 0.25 * 1.0) / 1.25)


# --- probes ---


@given(st.integers(min_value=1, max_value=1000))
def test_probes_go_by_powers_of_two_to_the_largest_and_end(most) -> None:
    footprint, sizes = Footprint(), []
    while (size := next_probe(footprint, most)) is not None:
        sizes.append(size)
        footprint = observed(footprint, exact(size, size * MIB, bucket=str(len(sizes) % 2)), NOW)
    assert sizes == [*(1 << power for power in range((most - 1).bit_length())), most]
    assert ladder(footprint, most, NOW)[-1].size == most


def test_a_largest_batch_between_sizes_that_are_known_needs_no_probe() -> None:
    footprint = measured(exact(1, MIB), exact(2, MIB), exact(4, MIB), exact(8, MIB))
    assert [next_probe(footprint, most) for most in (3, 5, 7, 8, 9)] == [None, None, None, None, 9]
    assert next_probe(measured(exact(8, MIB)), 5) == 1


def test_what_can_be_expected_not_to_fit_is_not_probed() -> None:
    footprint = measured(exact(1, 100 * MIB), exact(2, 200 * MIB))
    assert next_probe(footprint, 8, room=500 * MIB) == 4
    assert next_probe(footprint, 8, room=400 * MIB) is None


def test_what_a_model_takes_once_and_for_all_does_not_keep_larger_batches_from_being_probed() -> None:
    assert next_probe(measured(exact(1, 500 * MIB)), 8, room=700 * MIB) == 2


@given(room=st.integers(min_value=MIB, max_value=80 * GIB), each=st.integers(min_value=MIB, max_value=GIB))
def test_probes_on_a_device_too_small_run_out_once_and_end(room, each) -> None:
    footprint, failures = Footprint(), 0
    while (size := next_probe(footprint, 1024, room=room)) is not None:
        fits = size * each <= room
        failures += not fits
        footprint = observed(footprint, exact(size, size * each) if fits else ran_out(size, room), NOW, room=room)
    assert failures <= 1


# --- what is remembered ---


def test_the_newest_shapes_and_sizes_are_kept_and_the_probed_ones_always() -> None:
    history = [(exact(size, 0, bucket="all"), NOW + size) for size in range(1, 101)]
    history += [(exact(1, 0, bucket=str(shape)), NOW + 1000 + shape) for shape in range(MOST_BUCKETS - 1)]
    footprint = after(history)
    assert len(footprint.batches) == MOST_BUCKETS
    sizes = list(footprint.batches["all"])
    assert len(sizes) == MOST_SIZES
    assert sizes == sorted({1, 2, 4, 8, 16, 32, 64, *range(101 - (MOST_SIZES - 7), 101)})
    assert "all" not in observed(footprint, exact(1, 0, bucket="one more"), NOW + 2000).batches


@given(histories)
def test_what_was_known_is_not_changed_by_what_comes_after(history) -> None:
    before = after(history)
    as_it_was = msgspec.json.encode(before)
    observed(before, exact(1, GIB), NOW)
    assert msgspec.json.encode(before) == as_it_was


@given(history=histories, parked=st.none() | nbytes_of, context=nbytes_of, load_seconds=st.floats(0.0, 1e4))
def test_a_footprint_comes_back_from_json_as_it_was(history, parked, context, load_seconds) -> None:
    whole = after(history, Footprint(context=context, weights=GIB, parked=parked, load_seconds=load_seconds))
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Footprint) == whole


def test_a_measurement_of_three_numbers_is_an_exact_one() -> None:
    assert msgspec.json.decode(b"[1024,0.5,7.0]", type=Measured) == Measured(1024, 0.5, 7.0, 0.0, "exact")
