"""A worker that is told to stop waits for what can end within the grace, and for nothing else."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from kitchen import QUEUE, Kitchen, kitchen

from dumbwaiter.config import WorkerSettings
from dumbwaiter.policies.leaving import SHARE_FOR_BATCH
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

#: It takes as many seconds as its input says.
SLEEPER = """
import time
from pathlib import Path

class Model:
    def __call__(self, text: str) -> str:
        Path(__file__).with_name(f"begun-{text}").touch()
        time.sleep(float(text.partition("/")[0]))
        return text
"""


async def began(it: Kitchen, folder: Path, text: str) -> None:
    await it.send(text, text)
    await eventually((folder / f"begun-{text}").exists)


def has_run(it: Kitchen, seconds: float, times: int) -> None:
    """As if so many had run already."""
    it.consumer._workload.recent.extend([(1, seconds)] * times)


async def test_what_can_hardly_end_within_the_grace_is_handed_back_at_once(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SLEEPER, options=WorkerSettings(grace=20.0)) as it:
        has_run(it, 60.0, 5)
        await began(it, tmp_path, "1000")
        it.stop.set()
        started = time.monotonic()
        await it.running
        assert time.monotonic() - started < 5.0, "not at the end of the grace"
        (back,) = await it.broker.receive(QUEUE, max_messages=10, max_wait=0.0)
        assert (back.message.id, back.delivery_count) == ("1000", 1)


@pytest.mark.parametrize("told_by", ["the signal", "the notice"])
async def test_a_batch_gets_its_share_of_the_time_that_there_is(
    tmp_path: Path, told_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="dumbwaiter.worker.draining")
    grace = 100.0 if told_by == "the signal" else 1000.0
    async with kitchen(tmp_path, SLEEPER, options=WorkerSettings(grace=grace)) as it:
        has_run(it, 600.0, 5)
        await began(it, tmp_path, "1000")
        if told_by == "the signal":
            it.stop.set()
        else:
            it.consumer.leave_by(100.0)
        await it.running
    record = next(one for one in caplog.records if "will hardly end within" in one.msg)
    assert record.args[1] == pytest.approx(SHARE_FOR_BATCH * 100.0, abs=3.0)


async def test_what_can_end_within_the_grace_is_waited_for(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SLEEPER, options=WorkerSettings(grace=20.0)) as it:
        has_run(it, 10.0, 5)
        await began(it, tmp_path, "1.5")
        it.stop.set()
        await it.running
        assert (await it.result("1.5")).body == b"1.5"
        assert await it.is_empty()


async def test_what_nobody_has_measured_is_waited_for_until_the_grace_is_over(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SLEEPER, options=WorkerSettings(grace=1.5)) as it:
        await began(it, tmp_path, "1000")
        it.stop.set()
        started = time.monotonic()
        await it.running
        assert 1.0 < time.monotonic() - started < 6.0


async def test_what_the_worker_ran_itself_is_what_it_expects(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SLEEPER) as it:
        assert await it.output("0.3") == "0.3"
        ((size, seconds),) = it.consumer._workload.recent
        assert size == 1
        assert 0.3 <= seconds < 2.0
