"""What is known of a model's work, also while no worker runs: how long inputs and batches take, and how long it loads.

Workers keep it in the blob store. It is an estimate: of two that write at once one loses what it had to add, and a
power cut may cost all of it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.blobs.keys import safe_segment
from dumbwaiter.errors import BlobDamagedError, BlobNotFoundError
from dumbwaiter.policies import batch_times, service_times
from dumbwaiter.policies.batch_times import BatchTimes
from dumbwaiter.policies.service_times import LONGEST, ServiceTimes

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore

_NEWEST = 0.5
"""What the newest start of a worker counts in the mean."""
_LONGEST_START = 4 * 3600.0
"""Seconds beyond which a start or a load is a damaged number, and so unknown."""
_MOST_BATCHES = 1e12


class ServiceProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of *model*. Seconds; 0.0 for what was never measured.

    *times*: work of an input by its size. *batches*: how long whole batches take. *load_seconds*: from starting the
    process that runs the model until it is ready. *start_seconds*: of the worker around it, before that. *updated_at*
    is in seconds since the Unix epoch, as are the moments in *times* and *batches*.
    """

    model: str
    times: ServiceTimes = ServiceTimes()
    batches: BatchTimes = BatchTimes()
    load_seconds: float = 0.0
    start_seconds: float = 0.0
    updated_at: float = 0.0

    @property
    def cold_start(self) -> float:
        """Seconds from starting a worker on a machine that is there until it can serve; 0.0 while unknown."""
        return self.start_seconds + self.load_seconds

    @property
    def long_batch(self) -> float | None:
        """Seconds that 999 of 1,000 batches stay within; None while none was seen."""
        return batch_times.longest(self.batches)

    def seconds_each(self, now: float) -> float | None:
        """Work that is expected of the next input at *now*, seconds since the Unix epoch; None while unknown."""
        return service_times.expected(self.times, now)


_decode = msgspec.json.Decoder(ServiceProfile).decode


def merged(known: ServiceProfile, news: ServiceProfile, now: float) -> ServiceProfile:
    """*known* with *news* of the same model. Pure."""
    return ServiceProfile(
        model=known.model,
        times=service_times.merged(known.times, news.times, now),
        batches=batch_times.merged(known.batches, news.batches),
        load_seconds=_blended(known.load_seconds, news.load_seconds),
        start_seconds=_blended(known.start_seconds, news.start_seconds),
        updated_at=now,
    )


async def load_profile(store: BlobStore, model: str) -> ServiceProfile | None:
    """What is known of *model*; None when no worker of it ever said anything. Numbers in it that cannot be are as if
    they had never been measured.

    Raises BlobDamagedError for one that cannot be read, and BlobError.
    """
    try:
        data = await store.get(_key(model))
    except BlobNotFoundError:
        return None
    try:
        return sound(_decode(data), time.time())
    except (msgspec.DecodeError, RecursionError) as error:
        what = f"the profile of model {model!r} ({_key(model)})"
        raise BlobDamagedError(what, f"is damaged: {error}; a worker of it writes a new one") from error


def sound(profile: ServiceProfile, now: float) -> ServiceProfile:
    """*profile* without what no worker can have measured up to *now*. Pure."""
    return msgspec.structs.replace(
        profile,
        times=service_times.sound(profile.times, now),
        batches=_sound_batches(profile.batches, now),
        load_seconds=_sound_start(profile.load_seconds),
        start_seconds=_sound_start(profile.start_seconds),
    )


async def add_to_profile(store: BlobStore, news: ServiceProfile, now: float) -> ServiceProfile:
    """Add *news* to what is kept, and return the whole. Raises BlobError when the store cannot take it."""
    try:
        known = await load_profile(store, news.model)
    except BlobDamagedError:
        known = None
    whole = merged(known or ServiceProfile(model=news.model), sound(news, now), now)
    await store.put(_key(news.model), msgspec.json.encode(whole), durable=False)
    return whole


def _blended(known: float, news: float) -> float:
    if not known or not news:
        return known or news
    return known + _NEWEST * (news - known)


def _sound_start(seconds: float) -> float:
    return seconds if 0.0 <= seconds <= _LONGEST_START else 0.0


def _sound_batches(batches: BatchTimes, now: float) -> BatchTimes:
    last = batch_times.bin_of(LONGEST)
    counts = {
        number: count
        for number, count in batches.counts.items()
        if 0 <= number <= last and 0.0 < count <= _MOST_BATCHES
    }
    if not counts:
        return BatchTimes()
    return BatchTimes(counts=counts, at=batches.at if 0.0 <= batches.at <= now else now)


def _key(model: str) -> str:
    return f"profiles/{safe_segment(model)}.json"
