"""What is known of a model's work outlives its workers, and grows by what each of them adds."""

from __future__ import annotations

import pytest

from dumbwaiter.blobs import BlobStore
from dumbwaiter.blobs.profiles import ServiceProfile, add_to_profile, load_profile, merged
from dumbwaiter.errors import BlobDamagedError
from dumbwaiter.policies.batch_times import BatchTimes, bin_of
from dumbwaiter.policies.service_times import Bucket, ServiceTimes

pytestmark = pytest.mark.anyio


def news(seconds: float, count: int = 1, *, at: float = 100.0, **facts) -> ServiceProfile:
    return ServiceProfile(
        model="cats",
        times=ServiceTimes(buckets={10: Bucket(seconds, float(count), at)}),
        batches=BatchTimes(counts={bin_of(seconds): float(count)}, at=at),
        **facts,
    )


async def test_nothing_is_known_of_a_model_that_never_ran(store: BlobStore):
    assert await load_profile(store, "cats") is None


async def test_what_two_workers_add_is_known_together(store: BlobStore):
    await add_to_profile(store, news(1.0, 10), 100.0)
    whole = await add_to_profile(store, news(2.0, 30), 100.0)
    found = await load_profile(store, "cats")
    assert found == whole
    assert found.seconds_each(100.0) == pytest.approx(1.75)
    assert found.batches.total == pytest.approx(40.0)
    assert found.long_batch == pytest.approx(2.0, rel=0.2)
    assert found.updated_at == 100.0


async def test_models_have_profiles_of_their_own_whatever_their_names(store: BlobStore):
    await add_to_profile(store, news(1.0), 100.0)
    assert await load_profile(store, "../cats") is None


async def test_one_that_is_damaged_is_told_and_the_next_worker_makes_it_anew(store: BlobStore):
    await add_to_profile(store, news(1.0), 100.0)
    (key,) = await store.list("profiles/")
    await store.put(key, b"{")
    with pytest.raises(BlobDamagedError, match="the profile of model 'cats'"):
        await load_profile(store, "cats")
    await add_to_profile(store, news(2.0), 100.0)
    assert (await load_profile(store, "cats")).seconds_each(100.0) == 2.0


async def test_one_of_a_later_version_can_be_read(store: BlobStore):
    await store.put("profiles/cats.json", b'{"model": "cats", "load_seconds": 3, "colour": "grey"}')
    assert (await load_profile(store, "cats")).load_seconds == 3.0


def test_the_cold_start_follows_the_newest_starts_and_forgets_none_that_is_not_told():
    known = merged(news(1.0), news(1.0, load_seconds=40.0, start_seconds=2.0), 100.0)
    assert (known.load_seconds, known.cold_start) == (40.0, 42.0)
    assert merged(known, news(1.0), 100.0).cold_start == 42.0
    assert merged(known, news(1.0, load_seconds=20.0), 100.0).load_seconds == 30.0


@pytest.mark.parametrize(
    "damage",
    [
        b'"times": {"buckets": {"1": [1e308, 5.0, 100]}}',
        b'"load_seconds": 1e300, "start_seconds": -5',
        b'"batches": {"counts": {"1000000": 1.0, "-3": 1.0, "4": 1e308}, "at": 1e308}',
    ],
)
async def test_numbers_that_nobody_can_have_measured_are_unknown_and_are_not_kept(store: BlobStore, damage):
    await store.put("profiles/cats.json", b'{"model": "cats", %s}' % damage)
    found = await load_profile(store, "cats")
    assert (found.seconds_each(100.0), found.cold_start, found.long_batch) == (None, 0.0, None)
    whole = await add_to_profile(store, news(1.0, load_seconds=2.0), 100.0)
    assert (whole.seconds_each(100.0), whole.cold_start) == (1.0, 2.0)
    assert whole.long_batch == pytest.approx(1.0, rel=0.2)


@pytest.mark.parametrize("damage", [b"NaN", b"Infinity", b"1e999", b"[" * 20_000])
async def test_what_is_no_number_at_all_is_damage_that_is_told(store: BlobStore, damage):
    await store.put("profiles/cats.json", b'{"model": "cats", "load_seconds": %s}' % damage)
    with pytest.raises(BlobDamagedError):
        await load_profile(store, "cats")
    await add_to_profile(store, news(1.0), 100.0)
    assert (await load_profile(store, "cats")).seconds_each(100.0) == 1.0
