"""Real workers of several models on one fake device: nobody runs out of memory, nobody starves, all is answered.

The article's case: two models that need 3 and 6 GiB at inference time, measured and not configured, on a device of 8.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from sharing_kitchen import Counter, Kitchen, Watch, kitchen_in_memory, runners_of

from dumbwaiter.blobs.presence import workers_of
from dumbwaiter.testing import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

SMALL = (0.6, 2.4, 0.1)
BIG = (1.1, 4.9, 0.2)
#: What the pipe, the broker and this machine's other work may add to a wait, in seconds.
OVERHEAD = 0.5
#: The part of the time that loads may take beyond what was measured.
LATE = 0.1


HOG = """
import sys, time
from dumbwaiter.devices import fake
from dumbwaiter.devices.opening import open_allocator
open_allocator(sys.argv[1])
fake.hold(5 * 2**30)
print("full", flush=True)
time.sleep(600)
"""


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    with kitchen_in_memory(context="64MiB", frees_after="50ms") as it:
        yield it


async def start_the_articles_case(kitchen: Kitchen, *, small: float, big: float) -> None:
    """Two workers of the small model and one of the big one, of these weights, loaded and measured."""
    kitchen.add("small", *SMALL, weight=small)
    kitchen.add("big", *BIG, weight=big)
    for count, name in enumerate(("small", "small", "big"), start=1):
        kitchen.start(name)
        await kitchen.ready(count)


async def rate_alone(counter: Counter, model: str, seconds: float) -> float:
    """Answers a second while no other model has anything to do."""
    began = time.monotonic()
    await counter.keep_busy([model], began + seconds)
    count = len(counter.served.of(model, began + 1.0, began + seconds))
    await counter.all_answered()
    return count / (seconds - 1.0)


async def both_busy(kitchen: Kitchen, counter: Counter, seconds: float) -> tuple[float, float, Watch]:
    """Keep both models backlogged; the time in which they surely were, from and until, and what was seen meanwhile."""
    began = time.monotonic()
    watch = Watch(kitchen, "big")
    await asyncio.gather(counter.keep_busy(["small", "big"], began + seconds), watch.look_on(until=began + seconds))
    return began + 1.0, began + seconds, watch


def gib_seconds(counter: Counter, model: str, needs: float, since: float, until: float) -> float:
    return needs * sum(ended - began for began, ended in counter.served.batches(model, since, until))


async def test_two_models_that_do_not_fit_at_once_are_both_answered(kitchen: Kitchen) -> None:
    kitchen.add("small", *SMALL, footprint="3GiB")
    kitchen.add("big", *BIG, footprint="6GiB")
    kitchen.start("small")
    kitchen.start("big")
    async with kitchen.open() as counter:
        await counter.place("small", [{}] * 40)
        await counter.place("big", [{}] * 20)
        await counter.all_answered()
        assert not counter.served.failures
    kitchen.assert_never_out_of_memory()


@pytest.mark.trial
async def test_the_articles_case_neither_runs_out_of_memory_nor_starves_the_big_one(kitchen: Kitchen) -> None:
    """With equal weights fair queueing would give each about half, and so the small one half of its solo throughput
    (the next test). Here the small one weighs seven times as much, which is 7/8 of the device's GB-seconds.

    The big one's longest wait is taken from when its batches began and ended, as its answers tell. The bound is the
    policy's own, for the seats as they were whenever it asked, times how much slower batches were than measured.
    """
    async with kitchen.open() as counter:
        await start_the_articles_case(kitchen, small=7.0, big=1.0)
        alone = await rate_alone(counter, "small", 11.0)
        since, until, watch = await both_busy(kitchen, counter, 61.0)
        await counter.all_answered()

        together = len(counter.served.of("small", since, until)) / (until - since)
        waited = counter.served.longest_wait("big", since, until)
        slowness = counter.served.slowness({"small": SMALL[2], "big": BIG[2]})
        bound = slowness * max(watch.bounds.values()) + OVERHEAD
        report = f"small {together:.1f}/s of {alone:.1f}/s alone; big waited {waited:.2f} s, bound {bound:.2f} s"
        assert not counter.served.failures
        assert set(counter.served.times_answered.values()) == {1}
        assert together >= 0.75 * alone, report
        assert waited <= bound, report
        assert not watch.overcommitted
    kitchen.assert_never_out_of_memory()


@pytest.mark.trial
async def test_models_of_equal_weight_get_equal_shares_of_time_and_memory(kitchen: Kitchen) -> None:
    async with kitchen.open() as counter:
        await start_the_articles_case(kitchen, small=1.0, big=1.0)
        since, until, _ = await both_busy(kitchen, counter, 31.0)
        await counter.all_answered()
        small = gib_seconds(counter, "small", 3.0, since, until)
        big = gib_seconds(counter, "big", 6.0, since, until)
        assert abs(small - big) <= 0.25 * max(small, big), f"{small:.1f} and {big:.1f} GiB-seconds"
    kitchen.assert_never_out_of_memory()


@pytest.mark.trial
async def test_first_fit_instead_of_the_policy_starves_the_big_one(kitchen: Kitchen) -> None:
    """So the tests above bite. Loaded and measured as there; only who may run is decided otherwise."""
    async with kitchen.open() as counter:
        await start_the_articles_case(kitchen, small=1.0, big=1.0)
        kitchen.stop_all()
        for count, name in enumerate(("small", "small", "big"), start=1):
            kitchen.start(name, is_first_fit=True)
            await kitchen.ready(count)
        since, until, _ = await both_busy(kitchen, counter, 31.0)
        small = gib_seconds(counter, "small", 3.0, since, until)
        big = gib_seconds(counter, "big", 6.0, since, until)
        assert small > 0.0
        assert big < 0.1 * (small + big) / 2, f"{small:.1f} and {big:.1f} GiB-seconds"


@pytest.mark.trial
@pytest.mark.parametrize("kind", ["Movable", "Fixed"])
async def test_models_whose_weights_do_not_fit_together_take_turns_without_thrashing(
    kitchen: Kitchen, kind: str
) -> None:
    """Those that cannot park have their runners ended and started again. A model stays for at least five times what
    loading takes, so loading takes at most a sixth of the time, and LATE of it for what is not foreseen: a runner's
    start is no part of what was measured.
    """
    kitchen.add("small", 2.8, 0.4, 0.05, kind=kind)
    kitchen.add("big", 5.6, 0.6, 0.1, kind=kind)
    async with kitchen.open() as counter:
        for count, name in enumerate(("small", "big"), start=1):
            kitchen.start(name)
            await counter.place(name, [{}])
            await counter.all_answered()
            assert len(kitchen.seats()) == count
        began = time.monotonic()
        seconds = 61.0 if kind == "Fixed" else 31.0
        watch = Watch(kitchen, "big")
        await asyncio.gather(counter.keep_busy(["small", "big"], began + seconds), watch.look_on(began + seconds))
        until = began + seconds
        await counter.all_answered()
        assert counter.served.of("small", began, until)
        assert counter.served.of("big", began, until)
        assert watch.doing["loading"] <= (1 / 6 + LATE) * watch.looks, watch.doing
        assert watch.doing["loading"] > 0, "they did not swap"
        assert not counter.served.failures
    kitchen.assert_never_out_of_memory()


@pytest.fixture
def hog(kitchen: Kitchen) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has 5 GiB of the device and no seat."""
    with subprocess.Popen([sys.executable, "-c", HOG, kitchen.address], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


async def test_a_model_waits_for_what_has_no_seat_and_says_so(kitchen: Kitchen, hog: subprocess.Popen[bytes]) -> None:
    kitchen.add("big", *BIG, footprint="6GiB")
    kitchen.start("big")
    async with kitchen.open() as counter:

        async def says_why() -> bool:
            return any("GiB" in status.reason for status in await workers_of(counter.store, "big"))

        await counter.place("big", [{}] * 4)
        await eventually(says_why, within=20.0)
        (status,) = await workers_of(counter.store, "big")
        assert status.state == "loading"
        assert "6.00 GiB" in status.reason, status.reason
        assert not counter.served.ran
        hog.kill()
        await counter.all_answered()
        assert not counter.served.failures
    kitchen.assert_never_out_of_memory()


async def test_an_idle_model_gives_its_memory_back_and_comes_back_for_the_next_request(kitchen: Kitchen) -> None:
    kitchen.add("small", *SMALL, park_after="1s")
    worker = kitchen.start("small")
    async with kitchen.open() as counter:
        await counter.place("small", [{}] * 4)
        await counter.all_answered()
        (runner,) = runners_of(worker)
        await eventually(lambda: kitchen.device.used() == 64 * 2**20, within=20.0, what="only a context in use")
        await counter.place("small", [{}] * 4)
        await counter.all_answered()
        assert {one.pid for one in counter.served.ran} == {runner.pid}, "it was woken, not loaded again"
    kitchen.assert_never_out_of_memory()
