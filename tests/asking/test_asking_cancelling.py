"""Cancelling: the first result stands, for whoever asks."""

from __future__ import annotations

import time

import pytest

from dumbwaiter.answers import failure_of, succeeded, timings_of
from dumbwaiter.asking import cancel
from dumbwaiter.blobs import events, open_store
from dumbwaiter.blobs.results import load_result, save_result
from dumbwaiter.message import Message, Timings

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path):
    return open_store(f"file:{tmp_path}")


def succeeded_with(body):
    return succeeded(Message(id="r1"), body=body, content_type="text/plain", timings=Timings())


async def test_a_request_without_a_result_ends_canceled(store):
    stands = await cancel(store, "r1", model="soup", tenant="kitchen")
    failure = failure_of(stands)
    assert failure is not None
    assert failure.code == "canceled"
    assert (stands.correlation_id, stands.subject, stands.tenant) == ("r1", "soup", "kitchen")
    assert await load_result(store, "r1") == stands


async def test_a_request_that_has_ended_keeps_its_result(store):
    await save_result(store, "r1", succeeded_with(b"soup"), threshold=1024)
    assert await cancel(store, "r1") == await load_result(store, "r1")
    assert (await load_result(store, "r1")).body == b"soup"


async def test_a_long_output_stays_in_the_store(store):
    await save_result(store, "r1", succeeded_with(bytes(100)), threshold=10)
    stands = await cancel(store, "r1")
    assert failure_of(stands) is None
    assert stands.data_ref is not None
    assert stands.body == b""


async def test_a_second_cancelling_changes_nothing(store):
    assert await cancel(store, "r1") == await cancel(store, "r1")


async def test_what_ran_says_for_how_long_it_did(store):
    event = events.Event(id=events.event_id(events.new_attempt(1, time.time() - 5.0), events.FIRST), event="start")
    await events.append(store, "r1", [event])
    assert 5.0 <= timings_of(await cancel(store, "r1")).device < 60.0


async def test_what_waited_tells_no_times(store):
    assert timings_of(await cancel(store, "r1")) == Timings()
