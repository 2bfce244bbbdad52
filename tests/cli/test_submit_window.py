"""Which inputs of `dumbwaiter submit` are under way."""

from __future__ import annotations

import asyncio

import click
import pytest

from dumbwaiter.cli.inputs import inputs_of
from dumbwaiter.cli.submit_window import IN_FLIGHT, in_order
from dumbwaiter.errors import BlobError, BrokerUnavailableError

pytestmark = pytest.mark.anyio

COUNT = 3 * IN_FLIGHT


def texts(count):
    return inputs_of([f"text {number}" for number in range(count)], [], as_text=True)


class Asking:
    """Notes what was begun; an input whose name is in *errors* fails."""

    def __init__(self, errors):
        self.begun = []
        self._errors = errors

    async def __call__(self, given):
        self.begun.append(given.name)
        await asyncio.sleep(0)
        if given.name in self._errors:
            raise self._errors[given.name]
        return given.name


async def outcomes(inputs, ask):
    return [task.exception() or task.result() async for _, task in in_order(inputs, ask)]


async def test_outcomes_come_in_the_order_of_the_inputs():
    inputs = texts(COUNT)
    failed = BlobError("full")
    told = await outcomes(inputs, Asking({inputs[5].name: failed}))
    assert told == [failed if number == 5 else given.name for number, given in enumerate(inputs)]


async def test_when_the_broker_stayed_away_for_all_under_way_no_more_begin():
    inputs = texts(COUNT)
    ask = Asking({given.name: BrokerUnavailableError("away") for given in inputs})
    told = []

    async def listen():
        async for given, task in in_order(inputs, ask):
            told.append((given.name, str(task.exception())))

    with pytest.raises(click.ClickException, match=f"the last {2 * IN_FLIGHT} of {COUNT} inputs were not sent"):
        await listen()
    assert told == [(given.name, "away") for given in inputs[:IN_FLIGHT]]
    assert ask.begun == [given.name for given in inputs[:IN_FLIGHT]]


async def test_when_one_under_way_fares_better_the_others_begin_too():
    inputs = texts(COUNT)
    away = BrokerUnavailableError("away")
    told = await outcomes(inputs, Asking({given.name: away for given in inputs[: IN_FLIGHT - 1]}))
    assert told == [away] * (IN_FLIGHT - 1) + [given.name for given in inputs[IN_FLIGHT - 1 :]]
