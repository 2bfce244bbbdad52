"""What the worker promises, on a real runner process: nothing lost, the guilty alone pay, it leaves in good order."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from kitchen import BATCHED, QUEUE, SHOUT, kitchen

from dumbwaiter.answers import failure_of, timings_of
from dumbwaiter.blobs.presence import workers_of
from dumbwaiter.blobs.results import load_result
from dumbwaiter.config import WorkerSettings
from dumbwaiter.errors import BlobNotFoundError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


async def test_a_request_is_answered_and_completed(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SHOUT) as it:
        assert await it.output("soup") == "SOUP"
        await eventually(lambda: _is_empty(it))


async def test_the_answer_says_where_the_time_went(tmp_path: Path) -> None:
    async with kitchen(tmp_path, BATCHED) as it:
        timings = timings_of(await it.ask("soup", time=time.time()))
        assert timings.device >= 0.05
        assert timings.batch_size == 1
        assert 0.0 <= timings.queued < 5.0
        assert 0.0 <= timings.batched < 5.0


async def test_waiting_messages_run_in_full_batches(tmp_path: Path) -> None:
    async with kitchen(tmp_path, BATCHED) as it:
        outputs = await asyncio.gather(*(it.output(f"dish {number}") for number in range(64)))
        sizes = [int(output.split(":")[0]) for output in outputs]
        assert sizes.count(8) >= 40, sizes


async def test_a_message_that_nobody_waits_for_leaves_a_stored_result(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SHOUT) as it:
        await it.broker.send(QUEUE, [Message(id="later", body=b"soup", content_type="text/plain")])

        async def stored() -> bytes:
            try:
                return (await load_result(it.store, "later")).body
            except BlobNotFoundError:
                return b""

        assert await eventually(stored) == b"SOUP"
        await eventually(lambda: _is_empty(it))


async def test_an_asker_that_has_gone_away_loses_nobody_elses_answer(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SHOUT) as it:
        inbox = await it.broker.open_inbox()
        await inbox.close()
        orphan = Message(body=b"orphan", content_type="text/plain", reply_to=inbox.address)
        await it.broker.send(QUEUE, [orphan])
        assert await it.output("soup") == "SOUP"
        await eventually(lambda: _is_empty(it))


async def test_bad_input_is_answered_and_dead_lettered_at_once(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SHOUT) as it:
        answer = await it.asker.ask(QUEUE, Message(body=b"\xff\xfe", content_type="text/plain"), timeout=20.0)
        failure = failure_of(answer)
        assert failure is not None
        assert failure.code == "bad-input"
        [letter] = await eventually(lambda: it.broker.dead_letters(QUEUE))
        assert letter.reason == "bad-input"
        assert letter.delivery_count == 1
        assert await it.output("soup") == "SOUP"


async def test_one_raising_member_is_tried_again_alone_and_dead_lettered_with_its_traceback(tmp_path: Path) -> None:
    async with kitchen(tmp_path, BATCHED, max_deliveries=2) as it:
        texts = ["a", "raise", "b", "c"]
        answers = await asyncio.gather(*(it.ask(text) for text in texts))
        failures = [failure_of(answer) for answer in answers]
        assert [failure is None for failure in failures] == [True, False, True, True]
        [letter] = await eventually(lambda: it.broker.dead_letters(QUEUE))
        assert letter.reason == "model-error"
        assert "I do not like this one" in letter.detail
        assert "Traceback" in letter.detail
        assert letter.delivery_count == 2


async def test_an_exception_in_one_place_of_the_result_fails_only_that_message(tmp_path: Path) -> None:
    async with kitchen(tmp_path, BATCHED, max_deliveries=1) as it:
        answers = await asyncio.gather(*(it.ask(text) for text in ["a", "place", "b"]))
        assert [failure_of(answer) is None for answer in answers] == [True, False, True]


async def test_a_result_of_the_wrong_length_is_an_error_that_names_both_lengths(tmp_path: Path) -> None:
    async with kitchen(tmp_path, BATCHED) as it:
        failure = await it.failure("short")
        assert failure.code == "model-error"
        assert "0" in failure.message
        assert "1" in failure.message


@pytest.mark.parametrize(("poison", "words"), [("segfault", "SIGSEGV"), ("exit", "exited with code 3")])
async def test_a_poison_that_kills_the_runner_costs_its_mates_one_attempt_at_most(
    tmp_path: Path, poison: str, words: str
) -> None:
    async with kitchen(tmp_path, BATCHED, max_deliveries=2) as it:
        texts = ["a", "b", poison, "c", "d"]
        answers = await asyncio.gather(*(it.ask(text, timeout=50.0) for text in texts))
        failures = [failure_of(answer) for answer in answers]
        assert [failure is None for failure in failures] == [True, True, False, True, True], failures
        [letter] = await eventually(lambda: it.broker.dead_letters(QUEUE))
        assert letter.reason == "runner-crashed"
        assert words in letter.detail
        assert letter.message.body == poison.encode()
        assert "failing" not in it.states, "a poison is not the model's failure to load"


async def test_a_hang_is_ended_and_its_stack_is_the_evidence(tmp_path: Path) -> None:
    async with kitchen(tmp_path, BATCHED, max_deliveries=1, timeout=1.0) as it:
        failure = await it.failure("hang")
        assert failure.code == "runner-hung"
        [letter] = await eventually(lambda: it.broker.dead_letters(QUEUE))
        assert letter.reason == "runner-hung"
        assert "network.py" in letter.detail
        assert await it.output("soup") == "1:soup"


async def test_a_runner_killed_from_outside_loses_nothing(tmp_path: Path) -> None:
    async with kitchen(tmp_path, BATCHED, max_deliveries=5) as it:
        asking = [asyncio.create_task(it.output(f"dish {number}", timeout=50.0)) for number in range(50)]
        await eventually(lambda: sum(task.done() for task in asking) >= 8)
        os.kill(it.runner_pid, signal.SIGKILL)
        outputs = await asyncio.gather(*asking)
        assert [output.split(":")[1] for output in outputs] == [f"dish {number}" for number in range(50)]
        assert await it.broker.dead_letters(QUEUE) == []


async def test_a_message_past_its_deadline_is_told_so_and_never_run(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SHOUT) as it:
        failure = await it.failure("too late", deadline=time.time() - 1.0)
        assert failure.code == "deadline-exceeded"
        assert await it.broker.dead_letters(QUEUE) == []
        await eventually(lambda: _is_empty(it))


async def test_locks_are_renewed_while_a_slow_model_runs(tmp_path: Path) -> None:
    slow = """
        import time

        class Model:
            def __call__(self, text: str) -> str:
                time.sleep(2.0)
                return text
    """
    async with kitchen(tmp_path, slow, lock_duration=0.6) as it:
        asking = asyncio.create_task(it.output("slow"))
        await eventually(lambda: it.consumer._hand.in_runner == 1)
        while not asking.done():
            assert await it.broker.receive(QUEUE, max_messages=1, max_wait=0.1) == [] or asking.done()
        assert await asking == "slow"
        assert await it.broker.dead_letters(QUEUE) == []


async def test_a_model_that_cannot_be_constructed_says_why_and_its_messages_wait(tmp_path: Path) -> None:
    broken = """
        from pathlib import Path

        class Model:
            def __init__(self):
                if not (Path(__file__).parent / "weights").exists():
                    raise RuntimeError("the weights are not there yet")

            def __call__(self, text: str) -> str:
                return text.upper()
    """
    async with kitchen(tmp_path, broken, wait_ready=False) as it:
        await eventually(lambda: "failing" in it.states, within=20.0)
        status = next(status for status in it.statuses if status.state == "failing")
        assert "the weights are not there yet" in status.reason

        async def announced() -> str:
            (told,) = await workers_of(it.store, QUEUE)
            assert told.state == "failing"
            return told.reason

        assert await eventually(announced) == status.reason
        asking = asyncio.create_task(it.output("soup"))
        (tmp_path / "weights").touch()
        assert await asking == "SOUP"


async def test_stopping_hands_back_at_once_what_has_not_started_and_finishes_what_has(tmp_path: Path) -> None:
    slow = """
        import time

        class Model:
            max_batch = 2

            def __call__(self, texts: list[str]) -> list[str]:
                time.sleep(1.5)
                return texts
    """
    async with kitchen(tmp_path, slow) as it:
        asking = [asyncio.create_task(it.output(str(number))) for number in range(6)]
        # two run, two more may be in hand
        await eventually(lambda: _is_running(it))
        it.stop.set()
        stats = await eventually(lambda: _ready_at_least(it, 2), within=1.0)
        assert stats
        await it.running
        assert sum(task.done() for task in asking) >= 2
        left = await it.broker.receive(QUEUE, max_messages=10, max_wait=0.0)
        assert all(delivery.delivery_count == 1 for delivery in left), "handing back is not an attempt"
        assert len(left) + sum(task.done() for task in asking) == 6
        assert it.states[-1] == "draining"
        for task in asking:
            task.cancel()


async def test_what_does_not_finish_within_the_grace_goes_back_to_the_queue(tmp_path: Path) -> None:
    endless = """
        import time

        class Model:
            def __call__(self, text: str) -> str:
                time.sleep(1000)
                return text
    """
    async with kitchen(tmp_path, endless, options=WorkerSettings(grace=1.0)) as it:
        await it.broker.send(QUEUE, [Message(body=b"endless", content_type="text/plain")])
        await eventually(lambda: _is_running(it))
        started = time.monotonic()
        it.stop.set()
        await it.running
        assert time.monotonic() - started < 5.0
        [back] = await it.broker.receive(QUEUE, max_messages=10, max_wait=0.0)
        assert back.delivery_count == 1


async def test_a_claim_check_that_names_a_file_of_the_machine_is_refused(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SHOUT) as it:
        failure = failure_of(
            await it.asker.ask(QUEUE, Message(data_ref="file:///etc/passwd", content_type="text/plain"), timeout=20.0)
        )
        assert failure is not None
        assert failure.code == "bad-input"
        assert "file:///etc/passwd" in failure.message


async def test_big_bodies_travel_by_claim_check_both_ways_and_leave_nothing_behind(tmp_path: Path) -> None:
    async with kitchen(tmp_path, SHOUT) as it:
        assert await it.output("x" * 1_000_000) == "X" * 1_000_000
        await eventually(lambda: _no_claims(it))


async def _is_empty(it: object) -> bool:
    stats = await it.broker.stats(QUEUE)  # type: ignore[attr-defined]
    return stats.ready == stats.locked == stats.delayed == stats.dead == 0


async def _is_running(it: object) -> bool:
    keeper = it.consumer._keeper  # type: ignore[attr-defined]
    return bool(keeper._runner.recorder.busy(keeper._hand.slots))


async def _ready_at_least(it: object, count: int) -> bool:
    return (await it.broker.stats(QUEUE)).ready >= count  # type: ignore[attr-defined]


async def _no_claims(it: object) -> bool:
    return await it.store.list("claims/") == []  # type: ignore[attr-defined]
