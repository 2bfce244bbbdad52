"""A cancelled request frees the device, whatever its model is doing, and nobody else notices."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from kitchen import BATCHED, QUEUE, SHOUT, Kitchen, kitchen

from dumbwaiter.answers import failure_of, succeeded
from dumbwaiter.blobs.events import read_events
from dumbwaiter.blobs.local import LocalBlobStore
from dumbwaiter.blobs.results import save_result
from dumbwaiter.errors import BlobError
from dumbwaiter.message import Message, Timings
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

SLEEPY = """
import ctypes, os, time
from pathlib import Path

DIARY = Path(__file__).parent / "diary"

class Model:
    def __call__(self, text: str) -> str:
        with DIARY.open("a") as diary:
            diary.write(text + "\\n")
        if text == "sleep":
            time.sleep(1000)
        if text == "spin":
            while True:
                pass
        if text == "swallow":
            for _ in range(2):
                try:
                    time.sleep(1000)
                except BaseException:
                    pass
        if text == "deaf":
            lock = (ctypes.c_char * 64)()
            c = ctypes.CDLL(None)
            while True:
                c.pthread_mutex_lock(lock)
        if text == "mute":
            lock = (ctypes.c_char * 64)()
            c = ctypes.PyDLL(None)  # with the interpreter's lock
            while True:
                c.pthread_mutex_lock(lock)
        return f"{os.getpid()} {text}"
"""


GATED = BATCHED.replace(
    "    max_batch = 8",
    """    max_batch = 8

    def __init__(self):
        from pathlib import Path
        while not (Path(__file__).parent / "open").exists():
            time.sleep(0.01)
""",
)
"""Loads once all that shall run together waits in the queue."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dumbwaiter.worker.consumer._LOOK_EVERY", 0.1)


def diary(folder: Path) -> list[str]:
    file = folder / "diary"
    return file.read_text().split() if file.exists() else []


async def test_a_request_that_was_cancelled_while_it_waited_never_runs(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SLEEPY, wait_ready=False) as it:
        await it.cancel("early")
        await eventually(lambda: _exists(it))
        await it.send("sleep", "early")
        await it.send("soup", "late")
        assert (await it.result("late")).body.endswith(b"soup")
        await eventually(it.is_empty)
        assert diary(tmp_path) == ["soup"]
        assert _code(await it.result("early")) == "canceled"
        assert await it.broker.dead_letters(QUEUE) == []


@pytest.mark.parametrize("text", ["sleep", "spin", "swallow"])
async def test_cancelling_what_runs_frees_the_device_and_the_same_runner_serves_on(tmp_path: Path, text: str) -> None:
    async with kitchen(tmp_path, SLEEPY) as it:
        runner = it.runner_pid
        await it.send(text, "one")
        await eventually(lambda: diary(tmp_path) == [text])
        await it.cancel("one")
        await it.send("soup", "two")
        assert (await it.result("two", within=10)).body.decode() == f"{runner} soup"
        await eventually(it.is_empty)
        assert _code(await it.result("one")) == "canceled"
        assert it.runner_pid == runner


@pytest.mark.parametrize("text", ["deaf", "mute"])
async def test_a_model_that_hears_no_signal_is_killed_and_nobody_is_blamed(tmp_path, monkeypatch, text) -> None:
    monkeypatch.setattr("dumbwaiter.worker.keeper.CANCEL_PATIENCE", 0.5)
    async with kitchen(tmp_path, SLEEPY, max_deliveries=1) as it:
        runner = it.runner_pid
        await it.send(text, "one")
        await eventually(lambda: diary(tmp_path) == [text])
        await it.send("soup", "two")
        await it.cancel("one")
        assert (await it.result("two")).body.endswith(b"soup")
        assert it.runner_pid != runner
        await eventually(it.is_empty)
        assert _code(await it.result("one")) == "canceled"
        assert await it.broker.dead_letters(QUEUE) == []
        assert "failing" not in it.states


async def test_a_batch_with_one_cancelled_member_goes_on_for_its_mates(tmp_path: Path) -> None:
    code = GATED.replace("time.sleep(0.05)", "time.sleep(1.0 if len(texts) > 1 else 0)")
    async with kitchen(tmp_path, code, wait_ready=False) as it:
        await eventually(lambda: _exists(it))
        for name in ("a", "b", "c"):
            await it.send(name, name)
        await _open(it, tmp_path, 3)
        await it.cancel("b")
        assert (await it.result("a")).body == b"3:a"
        assert (await it.result("c")).body == b"3:c"
        assert _code(await it.result("b")) == "canceled"
        await eventually(it.is_empty)


async def test_a_batch_that_nobody_wants_any_more_is_interrupted(tmp_path: Path) -> None:
    code = GATED.replace("time.sleep(0.05)", "time.sleep(1000 if len(texts) > 1 else 0)")
    async with kitchen(tmp_path, code, wait_ready=False) as it:
        await eventually(lambda: _exists(it))
        for name in ("a", "b"):
            await it.send(name, name)
        await _open(it, tmp_path, 2)
        runner = it.runner_pid
        await asyncio.gather(it.cancel("a"), it.cancel("b"))
        await it.send("c", "c")
        assert (await it.result("c", within=10)).body == b"1:c"
        assert it.runner_pid == runner
        await eventually(it.is_empty)


async def test_a_batch_that_is_run_again_one_by_one_skips_whoever_was_cancelled(tmp_path: Path) -> None:
    code = GATED.replace(
        "time.sleep(0.05)",
        """
        if len(texts) > 1:
            time.sleep(1.0)
            raise ValueError("not together")
        if texts == ["sleep"]:
            time.sleep(1000)
        """,
    )
    async with kitchen(tmp_path, code, wait_ready=False) as it:
        await eventually(lambda: _exists(it))
        for name in ("sleep", "soup"):
            await it.send(name, name)
        await _open(it, tmp_path, 2)
        runner = it.runner_pid
        await it.cancel("sleep")
        assert (await it.result("soup", within=10)).body == b"1:soup"
        await eventually(it.is_empty)
        assert it.runner_pid == runner


async def test_a_generator_stops_between_its_chunks_and_is_closed(tmp_path: Path) -> None:
    code = """
        import time
        from collections.abc import Iterator
        from pathlib import Path

        class Model:
            def __call__(self, text: str) -> Iterator[str]:
                try:
                    for number in range(1000 if text == "endless" else 2):
                        time.sleep(0.02)
                        yield str(number)
                finally:
                    (Path(__file__).parent / f"{text}-closed").touch()
    """
    async with kitchen(tmp_path, code) as it:
        runner = it.runner_pid
        await it.send("endless", "one")
        await eventually(lambda: _has_output(it, "one"))
        await it.cancel("one")
        await eventually((tmp_path / "endless-closed").exists)
        await it.send("short", "two")
        assert (await it.result("two")).body == b'["0","1"]'
        assert it.runner_pid == runner
        await eventually(it.is_empty)


async def test_cancelling_while_it_ends_leaves_exactly_one_result_and_everybody_is_told_that_one(tmp_path) -> None:
    code = SHOUT.replace("return", "__import__('time').sleep(0.01)\n        return")
    async with kitchen(tmp_path, code) as it:
        inbox = await it.broker.open_inbox()
        for number in range(30):
            name = f"one-{number}"
            await it.send("soup", name, reply_to=inbox.address, extensions={"keep": "true"})
            await asyncio.sleep(0.001 * number)  # sometimes before, sometimes after, sometimes while it is saved
            stands = await it.cancel(name)
            (told,) = await inbox.receive(max_messages=1, max_wait=10)
            assert told.correlation_id == name
            assert told.id == stands.id == (await it.result(name)).id
        await eventually(it.is_empty)


async def test_the_stored_answer_goes_to_whoever_sends_a_request_again_and_its_claim_is_dropped(tmp_path) -> None:
    async with kitchen(tmp_path, SLEEPY) as it:
        said = succeeded(Message(id="one"), body=b"SOUP", content_type="text/plain", timings=Timings())
        await save_result(it.store, "one", said, threshold=2)
        await it.store.put("claims/again", b"sleep")
        inbox = await it.broker.open_inbox()
        again = Message(
            id="one",
            content_type="text/plain",
            data_ref="blob:claims/again",
            reply_to=inbox.address,
            correlation_id="again",
            extensions={"keep": "true"},
        )
        await it.broker.send(QUEUE, [again])
        (told,) = await inbox.receive(max_messages=1, max_wait=10)
        assert (told.id, told.body, told.correlation_id) == (said.id, b"SOUP", "again")
        await eventually(it.is_empty)
        assert await it.store.list("claims/") == []
        assert diary(tmp_path) == []


async def test_while_the_store_cannot_tell_a_kept_request_waits_and_the_others_do_not(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("dumbwaiter.worker.settling._UNSAVED_DELAY", 0.05)
    store = Forgetful(f"file://{tmp_path}/blobs", tmp_path / "blobs")
    async with kitchen(tmp_path, SLEEPY, store=store) as it:
        store.down = True
        await it.send("one", "one")
        await eventually(lambda: store.asked > 12)  # more often than any delivery limit
        assert (await it.output("pie")).endswith("pie")
        assert diary(tmp_path) == ["pie"]
        store.down = False
        assert (await it.result("one")).body.endswith(b"one")
        await eventually(it.is_empty)


async def test_a_store_that_fails_while_a_request_runs_only_delays_its_cancelling(tmp_path: Path, caplog) -> None:
    store = Forgetful(f"file://{tmp_path}/blobs", tmp_path / "blobs")
    async with kitchen(tmp_path, SLEEPY, store=store) as it:
        await it.send("sleep", "one")
        await eventually(lambda: diary(tmp_path) == ["sleep"])
        store.down = True
        await it.cancel("one")
        await eventually(lambda: "cannot be told" in caplog.text)
        store.down = False
        await eventually(it.is_empty, within=10)
        assert _code(await it.result("one")) == "canceled"


class Forgetful(LocalBlobStore):
    """While *down* it cannot tell whether an object is there."""

    down = False
    asked = 0

    async def exists(self, key: str) -> bool:
        self.asked += 1
        if self.down:
            raise BlobError("no route to the store")
        return await super().exists(key)


async def test_a_cancelled_request_is_not_handed_back_when_the_worker_leaves(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SLEEPY) as it:
        await it.send("swallow", "one")
        await eventually(lambda: diary(tmp_path) == ["swallow"])
        await it.cancel("one")
        it.stop.set()
        await it.running
        assert await it.is_empty()


async def _open(it: Kitchen, folder: Path, count: int) -> None:
    """Let the model load; return when it has *count* messages in one batch."""

    async def all_wait() -> bool:
        return (await it.broker.stats(QUEUE)).ready == count

    await eventually(all_wait)
    (folder / "open").touch()
    await eventually(lambda: it.consumer._hand.in_runner == count, within=20)


async def _exists(it: Kitchen) -> bool:
    return QUEUE in await it.broker.queues()


async def _has_output(it: Kitchen, id_: str) -> bool:
    return any(event.event == "output" for event in await read_events(it.store, id_))


def _code(answer: Message) -> str:
    failure = failure_of(answer)
    assert failure is not None
    return failure.code
