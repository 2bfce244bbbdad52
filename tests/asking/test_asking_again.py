"""Sending again while the broker is away."""

from __future__ import annotations

import pytest

from dumbwaiter.asking import while_away
from dumbwaiter.errors import BrokerClosedError, BrokerUnavailableError, PredictionTimeoutError

pytestmark = pytest.mark.anyio


class Sending:
    """Raises *errors*, one each time, the last one for ever; without any left it returns "soup"."""

    def __init__(self, *errors, for_ever=False):
        self.count = 0
        self._errors = list(errors)
        self._for_ever = for_ever

    async def __call__(self):
        self.count += 1
        if self._for_ever:
            raise self._errors[0]
        if self._errors:
            raise self._errors.pop(0)
        return "soup"


AWAY = BrokerUnavailableError("nothing listens there")


async def test_what_is_sent_at_once_is_sent_once():
    send = Sending()
    assert await while_away(send, 10.0, id_="r1") == "soup"
    assert send.count == 1


async def test_it_is_sent_again_until_the_broker_is_back():
    send = Sending(AWAY, AWAY)
    assert await while_away(send, 10.0, id_="r1") == "soup"
    assert send.count == 3


async def test_at_the_end_of_patience_the_reason_is_told_and_how_often_it_was_tried():
    send = Sending(AWAY, for_ever=True)
    with pytest.raises(BrokerUnavailableError) as caught:
        await while_away(send, 0.3, id_="r1")
    assert str(caught.value) == (
        f"the broker was unavailable for request 'r1', which was tried {send.count} times within 0.3 s; "
        "whether a worker has it is unknown: nothing listens there"
    )
    assert send.count > 1


async def test_without_patience_it_is_tried_once():
    send = Sending(AWAY, for_ever=True)
    with pytest.raises(BrokerUnavailableError, match="was tried once within 0 s"):
        await while_away(send, 0.0, id_="r1")
    assert send.count == 1


async def test_any_other_error_is_raised_at_once():
    send = Sending(AWAY, BrokerClosedError("closed"))
    with pytest.raises(BrokerClosedError, match=r"^closed$"):
        await while_away(send, 10.0, id_="r1")
    assert send.count == 2


async def test_an_answer_that_does_not_come_in_time_is_told_with_the_outage_before_it():
    late = PredictionTimeoutError("no answer to 'r1'")
    with pytest.raises(PredictionTimeoutError, match=r"^no answer to 'r1'$"):
        await while_away(Sending(late), 10.0, id_="r1")
    with pytest.raises(PredictionTimeoutError) as caught:
        await while_away(Sending(AWAY, late), 10.0, id_="r1")
    assert str(caught.value) == "no answer to 'r1'; meanwhile the broker was unavailable: nothing listens there"
