"""What a worker says of itself: how long an input takes it, and what its model takes, for the time when it is gone."""

from __future__ import annotations

from pathlib import Path

import pytest
from kitchen import BATCHED, QUEUE, SHOUT, Kitchen, kitchen

from dumbwaiter.blobs import presence
from dumbwaiter.blobs.cards import load_card
from dumbwaiter.blobs.local import LocalBlobStore
from dumbwaiter.blobs.presence import workers_of
from dumbwaiter.errors import BlobError
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


async def test_the_measured_time_of_one_input_is_announced(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("dumbwaiter.blobs.presence.ANNOUNCE_EVERY", 0.05)
    async with kitchen(tmp_path, BATCHED) as it:
        await eventually(lambda: _announced(it))
        assert await _seconds_each(it) == 0.0, "nobody knows yet"
        await it.output("soup")
        await eventually(lambda: _seconds_each(it))
        assert 0.005 < await _seconds_each(it) < 1.0


async def test_the_first_measured_time_is_announced_at_once(tmp_path: Path) -> None:
    """Until then gateways admit whoever comes; the next announcement of its own accord is 5 s away."""
    async with kitchen(tmp_path, BATCHED) as it:
        await eventually(lambda: _announced(it))
        await it.output("soup")
        await eventually(lambda: _seconds_each(it), within=presence.ANNOUNCE_EVERY / 2)


async def test_a_run_that_was_interrupted_says_nothing_of_the_usual_time(tmp_path: Path) -> None:
    code = """
    import time
    from pathlib import Path

    class Model:
        def __call__(self, text: str) -> str:
            if text == "sleep":
                Path(__file__).with_name("sleeps").touch()
                time.sleep(1000)
            return text
    """
    async with kitchen(tmp_path, code) as it:
        await it.output("soup")
        usual = it.consumer._keeper.seconds_each
        assert 0.0 < usual < 1.0
        await it.send("sleep", "one")
        await eventually((tmp_path / "sleeps").exists)
        await it.cancel("one")
        await eventually(it.is_empty)
        assert it.consumer._keeper.seconds_each == usual


async def test_a_models_card_outlives_its_worker(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SHOUT) as it:
        card = await eventually(lambda: _card(it))
        store = it.store
    assert await workers_of(store, QUEUE) == []
    card = await load_card(store, QUEUE)
    assert card.signature["input"]["kind"] == "text"


async def test_a_card_that_says_the_same_is_not_written_again(tmp_path: Path) -> None:
    store = Cards(tmp_path / "blobs")
    async with kitchen(tmp_path, SHOUT, store=store) as it:
        await eventually(lambda: _card(it))
    async with kitchen(tmp_path, SHOUT, store=store) as it:
        await eventually(lambda: _announced(it))
    assert store.written == 1
    async with kitchen(tmp_path, SHOUT.replace("text: str", "text: bytes"), store=store) as it:
        await eventually(lambda: store.written == 2)


async def test_a_card_that_cannot_be_kept_is_tried_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("dumbwaiter.blobs.presence.ANNOUNCE_EVERY", 0.05)
    store = Cards(tmp_path / "blobs")
    store.full = 3
    async with kitchen(tmp_path, SHOUT, store=store) as it:
        await eventually(lambda: _card(it))
        assert store.full == 0


class Cards(LocalBlobStore):
    """Counts cards; *full* times it says that its disk is full."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"file://{folder}", folder)
        self.written = 0
        self.full = 0

    async def put(self, key: str, data: bytes, *, durable: bool = True) -> None:
        if key.startswith("models/"):
            if self.full:
                self.full -= 1
                raise BlobError("no space left on the device")
            self.written += 1
        await super().put(key, data, durable=durable)


async def _announced(it: Kitchen) -> bool:
    return [status.state for status in await workers_of(it.store, QUEUE)] == ["ready"]


async def _seconds_each(it: Kitchen) -> float:
    (status,) = await workers_of(it.store, QUEUE)
    return status.seconds_each


async def _card(it: Kitchen) -> bool:
    try:
        return (await load_card(it.store, QUEUE)).name == QUEUE
    except BlobError:
        return False
