"""What a worker counts for whoever scales: work by size, batches, and how long it took to be ready."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dumbwaiter.policies.batch_times import bin_of
from dumbwaiter.policies.service_times import bucket_of
from dumbwaiter.worker.pipe import Done, Result
from dumbwaiter.worker.workload import Workload, process_age


def run(workload: Workload, *sizes: int, seconds: float, batch: int, target: int = 1) -> None:
    results = [Result(place, "", 0, 0.0, seconds, batch) for place in range(len(sizes))]
    workload.note_done([SimpleNamespace(nbytes=nbytes) for nbytes in sizes], Done(results, target, 0.0))


def test_the_work_of_an_input_is_its_share_of_its_batch_by_its_size():
    workload = Workload("cats")
    run(workload, 10, 10, 5000, 5000, seconds=0.8, batch=4)
    run(workload, 5000, seconds=0.6, batch=1)
    news = workload.take(100.0)
    light = news.times.buckets[bucket_of(10)]
    assert (light.seconds, light.weight, light.at) == (pytest.approx(0.2), 2.0, 100.0)
    assert news.times.buckets[bucket_of(5000)].seconds == pytest.approx((0.2 + 0.2 + 0.6) / 3)
    assert news.times.buckets[bucket_of(5000)].weight == 3.0
    assert workload.work_seconds == pytest.approx(1.4)


def test_each_batch_counts_once_whatever_its_size():
    workload = Workload("cats")
    run(workload, 1, 1, 1, 1, seconds=0.8, batch=4)
    run(workload, 1, seconds=3.0, batch=1)
    counts = workload.take(0.0).batches.counts
    assert counts == {bin_of(0.8): pytest.approx(1.0), bin_of(3.0): pytest.approx(1.0)}


def test_a_small_batch_counts_as_part_of_one_that_is_as_large_as_is_aimed_at():
    """0.1 s and 0.01 s for each: alone an input takes 0.11 s, and in a batch of ten a tenth of 0.2 s."""
    workload = Workload("cats")
    for size in (1, 2, 5, 10, 10):
        run(workload, *[1] * size, seconds=0.1 + 0.01 * size, batch=size, target=10)
    workload.take(0.0)
    run(workload, 1, seconds=0.11, batch=1, target=10)
    assert workload.mean == pytest.approx(0.02, rel=0.05)


def test_while_the_curve_is_unknown_an_input_takes_what_it_took():
    workload = Workload("cats")
    run(workload, 1, seconds=0.11, batch=1, target=10)
    assert workload.mean == pytest.approx(0.11)


def test_what_was_taken_is_no_news_again():
    workload = Workload("cats", start_seconds=2.0)
    assert not workload.has_news
    workload.note_loaded(7.0)
    run(workload, 1, seconds=0.1, batch=1)
    assert workload.has_news
    first = workload.take(0.0)
    assert (first.load_seconds, first.start_seconds, first.cold_start) == (7.0, 2.0, 9.0)
    assert not workload.has_news
    assert workload.mean is None
    again = workload.take(0.0)
    assert (again.cold_start, again.times.is_known, again.batches.total) == (0.0, False, 0.0)
    assert (workload.load_seconds, workload.work_seconds) == (7.0, pytest.approx(0.1)), "the counters go on"


def test_the_age_of_a_process_goes_on():
    assert 0.0 < process_age() < 24 * 3600.0
