"""What Service Bus calls our queues: no two alike, for it tells no capital letters from small ones."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.brokers.servicebus.names import is_inbox, is_queue, lane_named, name_of, new_inbox, queue_of
from dumbwaiter.policies.lanes import HIGH, LANES, LOW, NORMAL

QUEUES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", fullmatch=True)
LEGAL = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,258}[a-z0-9])?")


def test_the_usual_lane_has_the_plain_name():
    assert name_of("dumbwaiter", "infer", NORMAL) == "dumbwaiter_infer"
    assert name_of("dumbwaiter", "infer", HIGH) == "dumbwaiter_infer_high"
    assert name_of("dumbwaiter", "infer", LOW) == "dumbwaiter_infer_low"


@given(QUEUES)
def test_each_name_is_one_that_service_bus_takes(queue):
    for lane in range(LANES):
        assert LEGAL.fullmatch(name_of("p", queue, lane))


@given(QUEUES, QUEUES)
def test_no_two_queues_meet(one, two):
    names = {name_of("p", queue, lane) for queue in {one, two} for lane in range(LANES)}
    assert len(names) == LANES * len({one, two})


@given(QUEUES)
def test_a_name_that_was_not_cut_can_be_read_back(queue):
    name = name_of("p", queue, NORMAL)
    assert is_queue("p", name)
    assert queue_of("p", name) in (queue, None)
    assert not any(is_queue("p", name_of("p", queue, lane)) for lane in (HIGH, LOW))


def test_names_of_others_are_no_queues_of_ours():
    assert not is_queue("p", "orders")
    assert not is_queue("p", "p2_orders")
    assert not is_queue("p", new_inbox("p"))


def test_only_what_we_made_is_an_inbox():
    inbox = new_inbox("p")
    assert is_inbox("p", inbox)
    assert not any(is_inbox("p", name) for name in ("p_q", f"{inbox}x", inbox[:-1], f"x{inbox}", inbox.upper(), ""))


@pytest.mark.parametrize("text", ["3", "-1", "", "x", "1.5"])
def test_a_lane_that_is_none_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - int() says it, or we
        lane_named(text)
