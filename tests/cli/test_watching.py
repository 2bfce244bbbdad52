"""What `dumbwaiter submit` says of the model's workers while it waits."""

from __future__ import annotations

import asyncio
import json
import time

import click
import pytest

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.presence import WorkerStatus, announce
from dumbwaiter.brokers import open_broker
from dumbwaiter.cli.watching import unless_failing, with_reason
from dumbwaiter.errors import BlobError, PredictionTimeoutError

REASON = "cannot load 'light:Picky': Picky() raised RuntimeError: no weights in this house"


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path}/blobs")


def failing(reason="no weights\nTraceback"):
    return WorkerStatus(worker="w", model="cats", state="failing", reason=reason)


def test_a_model_that_no_worker_can_load_is_told_at_once(serve):
    serving = serve("light:Picky")
    serving.event("state", name="picky", state="failing")
    started = time.monotonic()
    shown = serving.run("submit", "picky", "x", "y", "--wait", "40s")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr == f"dumbwaiter: error: model 'picky' cannot be loaded: {REASON}\n"
    assert time.monotonic() - started < 30


def test_of_a_class_that_is_not_there_the_reason_is_told_and_no_queue_is_left(serve):
    serving = serve("light:Shuot")
    serving.event("state", name="shuot", state="failing")
    shown = serving.run("submit", "shuot", "x")
    assert (shown.returncode, shown.stdout) == (1, "")
    why = "cannot load 'light:Shuot': no class 'Shuot' in light; it has Add, Picky, Shout, Slow; did you mean 'Shout'?"
    assert shown.stderr == f"dumbwaiter: error: model 'shuot' cannot be loaded: {why}\n"
    assert json.loads(serving.run("queues", "--json").stdout) == []


@pytest.mark.anyio
async def test_a_model_whose_class_is_still_imported_is_told_to_be_so(project, run):
    async with open_broker(f"sqlite:{project}/.dumbwaiter/queue.db"):
        pass  # as its worker has it open
    status = WorkerStatus(worker="w", model="cats", state="loading", reason="")
    await announce(open_store(f"file://{project}/.dumbwaiter/blobs"), status)
    shown = await asyncio.to_thread(run, "queues", "cats")
    assert "model 'cats' has no queue yet: its worker is still loading the model; try again soon" in shown.stderr


@pytest.mark.anyio
async def test_whoever_waits_already_is_told_too(store):
    async def wait():
        async with unless_failing(store, "cats"):
            await announce(store, failing())
            await asyncio.Event().wait()

    with pytest.raises(click.ClickException, match=r"model 'cats' cannot be loaded: no weights$"):
        await wait()


@pytest.mark.anyio
async def test_a_reason_that_nobody_gives_is_told_as_such(store):
    await announce(store, failing(reason=""))
    with pytest.raises(click.ClickException, match="model 'cats' cannot be loaded: its workers do not say why"):
        async with unless_failing(store, "cats"):
            pytest.fail("it was begun")


@pytest.mark.anyio
async def test_one_worker_that_does_not_fail_is_enough_to_wait_for(store):
    await announce(store, failing())
    await announce(store, WorkerStatus(worker="w2", model="cats", state="loading"))
    async with unless_failing(store, "cats"):
        pass


@pytest.mark.anyio
async def test_an_error_of_the_block_stays_what_it_is(store):
    with pytest.raises(PredictionTimeoutError, match="too late"):
        async with unless_failing(store, "cats"):
            raise PredictionTimeoutError("too late")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("state", "reason"), [(None, "; no worker of this model is running"), ("loading", "; its worker is still loading")]
)
async def test_no_answer_in_time_says_what_the_workers_are_doing(store, state, reason):
    if state:
        await announce(store, WorkerStatus(worker="w", model="cats", state=state))
    error = await with_reason(store, "cats", PredictionTimeoutError("no answer within 1 s"))
    assert str(error).startswith(f"no answer within 1 s{reason}")


class Unreadable:
    async def list(self, prefix):
        raise BlobError("no permission")


@pytest.mark.anyio
async def test_a_store_that_cannot_be_read_leaves_all_as_it_is():
    async with unless_failing(Unreadable(), "cats"):
        pass
    error = PredictionTimeoutError("no answer within 1 s")
    assert await with_reason(Unreadable(), "cats", error) is error
