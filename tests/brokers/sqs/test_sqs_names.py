from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.brokers.sqs.names import PARTS, is_inbox, name_of, new_inbox, queue_of
from dumbwaiter.message import is_queue_name
from dumbwaiter.policies.lanes import NORMAL

queues = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", fullmatch=True).filter(is_queue_name)
prefixes = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,19}", fullmatch=True)


def test_the_usual_lane_has_the_name_that_other_producers_expect():
    assert name_of("dumbwaiter", "resnet-50", NORMAL) == "dumbwaiter_resnet-50"
    assert name_of("dumbwaiter", "resnet.v2", NORMAL) == "dumbwaiter_resnet_2ev2"


@given(prefixes, queues, st.sampled_from(PARTS))
def test_sqs_takes_every_name(prefix, queue, part):
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,80}", name_of(prefix, queue, part))


@given(prefixes, queues)
def test_a_short_name_is_read_back_and_a_long_one_is_known_as_ours(prefix, queue):
    name, is_one = queue_of(prefix, name_of(prefix, queue, NORMAL))
    assert is_one
    assert name in (queue, None)
    if len(queue) <= 18:
        assert name == queue


@given(prefixes, queues)
def test_the_other_parts_of_a_queue_are_no_queues(prefix, queue):
    for part in PARTS:
        if part != NORMAL:
            assert queue_of(prefix, name_of(prefix, queue, part)) == (None, False)


@given(st.lists(st.tuples(prefixes, queues, st.sampled_from(PARTS)), min_size=2, unique=True))
def test_no_two_become_one(places):
    assert len({name_of(*place) for place in places}) == len(places)


def test_what_lies_under_another_prefix_is_not_ours():
    for name in ("other_resnet", "dumbwaiter", "dumbwaiter-2_resnet", "dumbwaiter_a.fifo"):
        assert queue_of("dumbwaiter", name) == (None, False)


def test_an_inbox_is_no_queue_and_nothing_else_is_an_inbox():
    address = new_inbox("dumbwaiter")
    assert is_inbox("dumbwaiter", address)
    assert queue_of("dumbwaiter", address) == (None, False)
    for other in (f"{address}0", address[:-1], "dumbwaiter_resnet", "", new_inbox("other"), f"x{address}"):
        assert not is_inbox("dumbwaiter", other)
