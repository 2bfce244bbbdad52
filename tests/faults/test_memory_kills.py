"""A real out-of-memory kill by the kernel: a control group with too little memory for what one input asks for."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from node import LOCK, Node

from dumbwaiter.answers import failure_of
from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.results import load_result
from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.errors import BlobNotFoundError
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.trial, pytest.mark.timeout(120)]

MEBIBYTE = 1024 * 1024
LIMIT = 256 * MEBIBYTE
GLUTTON = """
class Model:
    def __call__(self, text: str) -> str:
        if text == "too much":
            hoard = [bytearray(b"x" * 16_000_000) for _ in range(60)]
        return text.upper()
"""
GROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
async def small_group() -> AsyncIterator[Path]:
    """A control group of 256 MiB. Ask for it before the node: it can go only when the node's processes have gone."""
    folder, limit = (GROUPS / "memory", "memory.limit_in_bytes")
    if not folder.is_dir():
        folder, limit = (GROUPS, "memory.max")
    group = folder / f"dumbwaiter-test-{secrets.token_hex(4)}"
    try:
        group.mkdir()
        (group / limit).write_text(str(LIMIT))
    except OSError as error:
        with contextlib.suppress(OSError):
            group.rmdir()
        pytest.skip(f"NOT CHECKED: no control group can be made here ({error}); run as root")
    yield group
    await eventually(lambda: _is_removed(group), what="the end of the group's processes")


async def test_an_input_that_makes_the_kernel_kill_the_runner_says_so_on_its_dead_letter(
    small_group: Path, node: Node
) -> None:
    node.write_model(GLUTTON)
    store = open_store(node.store_url)

    def enter() -> None:
        (small_group / "cgroup.procs").write_text(str(os.getpid()))

    async with open_broker(node.broker_url, lock_duration=LOCK) as broker:
        await broker.create_queue("model")
        bodies = {"poison": b"too much", **{f"good-{number}": b"fine" for number in range(20)}}
        messages = [Message(id=name, body=body, content_type="text/plain") for name, body in bodies.items()]
        await broker.send("model", messages)
        worker = node.worker(before_start=enter)

        async def all_ended() -> bool:
            try:
                answers = {name: await load_result(store, name) for name in bodies}
            except BlobNotFoundError:
                return False
            assert all(answers[name].body == b"FINE" for name in bodies if name != "poison")
            failure = failure_of(answers["poison"])
            assert failure is not None
            assert failure.code == "out-of-memory-killed"
            assert failure.attempts == 3
            return True

        await eventually(all_ended, within=60.0, every=0.2)
        await eventually(lambda: _is_buried(broker), within=10.0)
        (letter,) = await broker.dead_letters("model")
        assert letter.message.id == "poison"
        assert letter.reason == "out-of-memory-killed"
        assert "kernel's out-of-memory killer" in letter.detail
        assert "oom_kill count" in letter.detail
        assert worker.poll() is None, "the consumer survives"


async def _is_buried(broker: Broker) -> bool:
    return (await broker.stats("model")).dead == 1


def _is_removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True
