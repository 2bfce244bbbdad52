"""Since when is a message locked that a long poll brought? Whoever was stopped cannot tell, and assumes the worst."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from dumbwaiter.brokers import open_broker
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio


async def test_a_message_that_came_while_its_receiver_was_stopped_is_left_to_others(ministack):
    url = ministack.url(prefix="stopped")
    async with open_broker(url, lock_duration=30.0) as broker:
        await broker.create_queue("q")
        command = (sys.executable, str(Path(__file__).with_name("sqs_receiver.py")), url, "q", "1.0")
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
        try:
            assert await line_of(child) == "ready"
            lost = await given_to_a_stopped_one(child, broker)
            # SQS frees it, and somebody else takes it.
            (held,) = await broker.receive("q", max_messages=1, max_wait=10.0)
            assert held.message.id == lost.id
            child.send_signal(signal.SIGCONT)
            last = Message()
            await broker.send("q", [last])
            assert await line_of(child) == last.id, "the receiver that was stopped serves what another one holds"
            await broker.complete([held])
        finally:
            child.kill()
            await child.wait()


async def test_a_lock_that_ended_while_its_holder_was_stopped_is_not_handed_back(moto):
    """SQS would take that from whoever had the message before, and free it under its next holder."""
    url = moto.url(prefix="ended")
    with start_blocking_portal() as elsewhere, elsewhere.wrap_async_context_manager(open_broker(url)) as other:
        async with open_broker(url, lock_duration=1.0) as holder:
            await holder.create_queue("q")
            await holder.send("q", [Message()])
            (held,) = await holder.receive("q", max_messages=1, max_wait=10.0)
            # This event loop stands still meanwhile, as that of a stopped process does.
            (new,) = elsewhere.call(partial(other.receive, "q", max_messages=1, max_wait=10.0))
            assert new.message.id == held.message.id
            await eventually(lambda: len(holder._holding._leases) == 0)
        assert elsewhere.call(partial(other.receive, "q", max_messages=1, max_wait=1.5)) == []
        elsewhere.call(other.complete, [new])


async def line_of(child):
    return (await child.stdout.readline()).decode().strip()


async def given_to_a_stopped_one(child, broker):
    """Stop *child* while its long poll stands, which nobody can see; so try until a message is given to it."""
    while True:
        child.send_signal(signal.SIGSTOP)
        message = Message()
        await broker.send("q", [message])
        try:
            await eventually(lambda: is_locked(broker), within=1.0)
        except AssertionError:
            child.send_signal(signal.SIGCONT)
            assert await line_of(child) == message.id
            await eventually(lambda: is_empty(broker), within=10.0)
        else:
            return message


async def is_locked(broker):
    return (await broker.stats("q")).locked == 1


async def is_empty(broker):
    stats = await broker.stats("q")
    return stats.ready == stats.locked == 0
