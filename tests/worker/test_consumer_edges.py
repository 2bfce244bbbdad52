"""The worker at its edges: under load, with huge batches and bodies, cancelled, and with attempts that keep failing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from kitchen import BATCHED, QUEUE, SHOUT, Kitchen, kitchen

from dumbwaiter.answers import failure_of
from dumbwaiter.blobs.presence import workers_of
from dumbwaiter.blobs.results import load_result
from dumbwaiter.config import WorkerSettings
from dumbwaiter.errors import BlobNotFoundError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


async def test_renewing_under_load_loses_no_lock_and_throws_nobody_out(tmp_path: Path, caplog) -> None:
    url = f"sqlite://{tmp_path}/queue.db"
    async with kitchen(tmp_path, SHOUT, broker_url=url, lock_duration=0.3) as it:

        async def ask_on() -> None:
            for _ in range(40):
                assert await it.output("soup") == "SOUP"

        await asyncio.gather(*(ask_on() for _ in range(32)))
        assert "lock lost" not in caplog.text
        assert "lock(s) lost" not in caplog.text
        await eventually(lambda: len(it.consumer._hand) == 0)


async def test_more_waiting_than_the_runner_has_slots_for_are_all_answered(tmp_path: Path) -> None:
    code = BATCHED.replace("max_batch = 8", "max_batch = 2048")
    async with kitchen(tmp_path, code) as it:
        answers = await asyncio.gather(*(it.output(f"dish-{number}", timeout=50) for number in range(5000)))
        assert [answer.partition(":")[2] for answer in answers] == [f"dish-{number}" for number in range(5000)]


async def test_a_batch_that_is_run_again_one_by_one_is_not_taken_for_a_hang(tmp_path: Path) -> None:
    code = """
        import time

        class Model:
            max_batch = 8

            def __call__(self, texts: list[str]) -> list[str]:
                time.sleep(0.5)
                if "raise" in texts:
                    raise ValueError("not this one")
                return texts
    """
    async with kitchen(tmp_path, code, timeout=2.0, max_deliveries=1) as it:
        await it.output("warm")
        first = asyncio.create_task(it.output("first"))
        await eventually(lambda: it.consumer._hand.in_runner == 1)
        names = ["raise", *(f"good-{number}" for number in range(7))]
        answers = await asyncio.gather(*(it.ask(name) for name in names))
        codes = [failure.code if (failure := failure_of(answer)) else None for answer in answers]
        assert codes == ["model-error", *[None] * 7]
        await first
        assert it.states.count("loading") == 1, "its runner was killed"


async def test_each_failed_attempt_is_logged_with_its_reason(tmp_path: Path, caplog) -> None:
    async with kitchen(tmp_path, BATCHED, max_deliveries=2) as it:
        assert (await it.failure("raise")).attempts == 2
        assert "attempt 1 of" in caplog.text
        assert "the next one in" in caplog.text
        assert "I do not like this one" in caplog.text


async def test_whoever_waits_hears_the_reason_before_the_deadline_and_not_that_time_was_up(tmp_path: Path) -> None:
    code = """
        class Model:
            def __call__(self, text: str) -> str:
                raise MemoryError("the device is full")
    """
    async with kitchen(tmp_path, code) as it:
        failure = await it.failure("soup", deadline=time.time() + 3.0)
        assert failure.code == "out-of-memory"
        assert "the device is full" in failure.detail
        (letter,) = await it.broker.dead_letters(QUEUE)
        assert letter.reason == "out-of-memory"


async def test_large_claims_are_fetched_only_while_the_runner_has_room_for_their_bytes(tmp_path: Path) -> None:
    code = """
        import time

        class Model:
            max_batch = 16

            def __call__(self, bodies: list[bytes]) -> list[bytes]:
                time.sleep(0.05)
                return [body[:3] for body in bodies]
    """
    options = WorkerSettings(max_nbytes_in_hand=1_000_000)
    async with kitchen(tmp_path, code, options=options) as it:
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, it.consumer._hand.nbytes_in_runner)
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        body = b"pie" + bytes(400_000)
        asks = (it.asker.ask(QUEUE, Message(body=body), timeout=20) for _ in range(40))
        answers = await asyncio.gather(*asks)
        watching.cancel()
        assert {answer.body for answer in answers} == {b"pie"}
        assert most <= 1_000_000 + 4 * 400_003, "four are fetched at a time"


@pytest.mark.parametrize("leaving", [False, True])
async def test_a_cancelled_worker_leaves_no_task_and_no_runner_behind(tmp_path: Path, leaving: bool) -> None:
    async with kitchen(tmp_path, BATCHED) as it:
        before = it.runner_pid
        asking = asyncio.create_task(it.ask("hang"))
        await eventually(lambda: it.consumer._hand.in_runner == 1)
        if leaving:
            it.stop.set()
            await eventually(lambda: "draining" in it.states)
        it.running.cancel()
        await asyncio.gather(it.running, return_exceptions=True)
        ours = [task for task in asyncio.all_tasks() if "dumbwaiter.worker" in str(task.get_coro())]
        names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
        assert not ours
        assert not [name for name in names if name.startswith(("Consumer", "RunnerKeeper", "Settler"))]
        await eventually(lambda: not psutil.pid_exists(before) or psutil.Process(before).status() == "zombie")
        asking.cancel()


async def test_a_constructor_that_never_returns_is_ended_and_told(tmp_path: Path) -> None:
    code = """
        import time

        class Model:
            def __init__(self):
                time.sleep(1000)

            def __call__(self, text: str) -> str:
                return text
    """
    async with kitchen(tmp_path, code, options=WorkerSettings(load_timeout=0.5), wait_ready=False) as it:
        await eventually(lambda: "failing" in it.states, within=20)
        (reason,) = {status.reason for status in it.statuses if status.state == "failing"}
        assert "no sign of life" in reason


async def test_a_worker_that_leaves_is_no_longer_listed(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SHOUT) as it:
        await eventually(lambda: _announced(it))
        store = it.store
    assert await workers_of(store, QUEUE) == []


async def _announced(it: Kitchen) -> bool:
    return [status.state for status in await workers_of(it.store, QUEUE)] == ["ready"]


WILD = """
import os, sys

class Model:
    def __call__(self, text: str) -> str:
        if text == "close":
            os.closerange(3, 1 + max(map(int, os.listdir("/proc/self/fd"))))
        if text == "babble":
            for fd in [int(fd) for fd in os.listdir("/proc/self/fd") if int(fd) > 2]:
                try:
                    os.write(fd, b"\\xff" * 100)
                except OSError:
                    pass
        if text == "fork":
            os.fork()
        return text.upper()
"""


async def test_a_runner_that_does_not_even_look_at_its_input_is_ended_as_hung(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SHOUT, timeout=0.5, max_deliveries=1) as it:
        os.kill(it.runner_pid, signal.SIGSTOP)
        assert (await it.failure("soup")).code == "runner-hung"
        assert await it.output("pie") == "PIE"


@pytest.mark.parametrize("text", ["close", "babble"])
async def test_a_model_that_meddles_with_the_runners_descriptors_costs_its_runner_and_nothing_more(
    tmp_path: Path, text: str
) -> None:
    async with kitchen(tmp_path, WILD, timeout=5.0, max_deliveries=1) as it:
        failure = await it.failure(text)
        assert failure.code == "runner-crashed", failure
        assert await it.output("pie") == "PIE"
        assert not it.running.done(), "the consumer lives"


async def test_a_model_that_forks_and_goes_on_in_both_is_answered_once_and_serves_on(tmp_path: Path) -> None:
    async with kitchen(tmp_path, WILD) as it:
        runner = it.runner_pid
        assert await it.output("fork") == "FORK"
        assert await it.output("pie") == "PIE"
        assert it.runner_pid == runner


async def test_an_exit_while_decoding_is_that_inputs_own_failure(tmp_path: Path) -> None:
    code = """
        import msgspec

        class Order(msgspec.Struct):
            dish: str

            def __post_init__(self):
                if self.dish == "exit":
                    raise SystemExit(3)

        class Model:
            def __call__(self, order: Order) -> str:
                return order.dish.upper()
    """
    async with kitchen(tmp_path, code, max_deliveries=1) as it:
        assert (await it.failure('{"dish": "exit"}')).code == "model-error"
        assert await it.output('{"dish": "pie"}') == "PIE"


async def test_from_its_second_delivery_on_a_message_has_the_runner_to_itself(tmp_path: Path) -> None:
    code = """
        import time

        class Model:
            max_batch = 8

            def __call__(self, texts: list[str]) -> list[str]:
                time.sleep(0.05)
                return [f"{len(texts)} {text}" for text in texts]
    """
    async with kitchen(tmp_path, code, wait_ready=False) as it:
        await eventually(lambda: _exists(it))
        messages = [Message(id=f"{n}", body=b"soup", content_type="text/plain") for n in range(30)]
        await it.broker.send(QUEUE, messages)
        again = [one for one in await it.broker.receive(QUEUE, max_messages=3, max_wait=5) if one.message.id != "1"]
        await it.broker.abandon(again)
        together: list[int] = []

        async def watch() -> None:
            while True:
                held = list(it.consumer._hand._by_slot.values())
                if any(one.delivery.delivery_count > 1 for one in held):
                    together.append(len(held))
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        results = [await _result(it, message.id) for message in messages if message.id != "1"]
        watching.cancel()
        assert len(results) == 29
        assert set(together) == {1}


async def _exists(it: Kitchen) -> bool:
    return QUEUE in await it.broker.queues()


async def _result(it: Kitchen, request_id: str) -> Message:
    async def there() -> Message | None:
        with contextlib.suppress(BlobNotFoundError):
            return await load_result(it.store, request_id)
        return None

    answer = await eventually(there, within=20)
    assert answer is not None
    return answer
