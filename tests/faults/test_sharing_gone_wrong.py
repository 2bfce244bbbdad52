"""Out of memory anyway, leaks, dead contexts: one input's doing on a shared device is charged to nobody else.

Models are tried once only here (max_deliveries = 1): whoever is charged an attempt that was not its own becomes a dead
letter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sharing_kitchen import GIB, Counter, Kitchen, kitchen_in_memory, runners_of

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    with kitchen_in_memory(context="64MiB", frees_after="50ms") as it:
        yield it


async def order(counter: Counter, *wishes: dict[str, Any]) -> list[str]:
    """Order three plain dishes with each of *wishes*, so that they share a batch, and wait for all answers."""
    orders = [one for wish in wishes for one in ({}, wish, {}, {})]
    names = await counter.place("model", orders)
    await counter.all_answered()
    return names[1::4]


async def dead_letters(counter: Counter) -> dict[str, str]:
    """Reasons by id of request."""
    return {letter.message.id: letter.reason for letter in await counter.broker.dead_letters("model")}


async def test_inputs_that_need_more_than_was_measured_are_answered_and_nobody_is_blamed(kitchen: Kitchen) -> None:
    kitchen.add("model", 1.0, 2.0, 0.02, max_deliveries=1)
    kitchen.add("other", 1.0, 2.0, 0.05, max_deliveries=1)
    kitchen.start("model")
    await kitchen.ready(1)
    kitchen.start("other")
    await kitchen.ready(2)
    async with kitchen.open() as counter:
        await counter.place("other", [{}] * 40)
        await order(counter, *[{"more": 4.0}] * 5)
        assert not counter.served.failures
        assert await dead_letters(counter) == {}


async def test_an_input_that_no_device_has_room_for_is_a_dead_letter_and_the_others_are_answered(
    kitchen: Kitchen,
) -> None:
    kitchen.add("model", 1.0, 2.0, 0.02, max_deliveries=1)
    kitchen.start("model")
    async with kitchen.open() as counter:
        guilty = await order(counter, {}, {"more": 20.0}, {})
        assert await dead_letters(counter) == {guilty[1]: "out-of-memory"}
        assert set(counter.served.failures) == {guilty[1]}
        said = counter.served.failures[guilty[1]].message
        assert "memory" in said, said
        await order(counter, {})
        assert set(counter.served.failures) == {guilty[1]}


async def test_a_leak_is_taken_account_of_and_everybody_goes_on(kitchen: Kitchen) -> None:
    kitchen.add("model", 1.0, 2.0, 0.02, max_deliveries=1)
    kitchen.add("other", 1.0, 2.0, 0.02, max_deliveries=1)
    for count, name in enumerate(("model", "other"), start=1):
        kitchen.start(name)
        await kitchen.ready(count)
    async with kitchen.open() as counter:
        await order(counter, {"leak": 0.5}, {"leak": 0.5}, {"leak": 0.5})
        assert kitchen.device.record().leaked >= 1.5 * GIB
        for _ in range(5):
            await counter.place("other", [{}] * 8)
            await order(counter, {})
        assert not counter.served.failures


async def test_a_dead_context_costs_the_runner_and_nobody_who_shared_the_batch(kitchen: Kitchen) -> None:
    kitchen.add("model", 1.0, 2.0, 0.02, max_deliveries=1)
    worker = kitchen.start("model")
    await kitchen.ready(1)
    (before,) = runners_of(worker)
    async with kitchen.open() as counter:
        guilty = await order(counter, {"break": True}, {})
        assert await dead_letters(counter) == {guilty[0]: "device-error"}
        assert set(counter.served.failures) == {guilty[0]}
        await order(counter, {})
        assert set(counter.served.failures) == {guilty[0]}
    assert before.pid not in {runner.pid for runner in runners_of(worker)}
    assert worker.poll() is None
