"""One worker from its start to its end, and what goes on beside it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.config import WorkerSettings
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.testing import eventually
from dumbwaiter.worker import run
from dumbwaiter.worker.run import run_worker

pytestmark = pytest.mark.anyio

SHOUT = """
class Shout:
    def __call__(self, text: str) -> str:
        return text.upper()
"""


async def test_a_watch_for_notices_that_ends_by_a_fault_of_ours_is_logged_and_the_worker_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> float:
        raise ZeroDivisionError

    monkeypatch.setattr(run, "heed_notice", fails)
    (tmp_path / "light.py").write_text(SHOUT)
    stop = asyncio.Event()
    async with open_broker("memory:") as broker:
        spec = ModelSpec(name="shout", target="light:Shout", project=str(tmp_path))
        store, options = open_store(f"file://{tmp_path}/blobs"), WorkerSettings(spot="aws")
        task = asyncio.create_task(run_worker(broker, store, spec, options, stop=stop))
        await eventually(lambda: "no notice of this machine's end is heeded any more" in caplog.text)
        assert not task.done()
        stop.set()
        assert await task == 0
