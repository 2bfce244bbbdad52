"""Names, properties, positions and shares."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.brokers.pulsar.allotting import shares
from dumbwaiter.brokers.pulsar.holding import LaneTap
from dumbwaiter.brokers.pulsar.location import location_of
from dumbwaiter.brokers.pulsar.names import Names, is_topic
from dumbwaiter.brokers.pulsar.wire import (
    BEFORE,
    DETAIL,
    DETAIL_LIMIT,
    DUE,
    LANE,
    OWN,
    PROPERTIES_LIMIT,
    Position,
    again,
    attributes_of,
    batch_size,
    dead,
    delivery_count_of,
    due_of,
    gone,
    gone_of,
    position_of,
    properties_of,
)
from dumbwaiter.envelope import from_attributes
from dumbwaiter.errors import MessageTooLargeError
from dumbwaiter.message import Message
from dumbwaiter.policies.lanes import HIGH, LOW, NORMAL


def test_topics_stand_in_the_namespace_and_begin_with_the_prefix():
    names = Names.at(location_of("pulsar://host/vision/staging?prefix=mine"))
    assert names.lanes("resnet") == [
        "persistent://vision/staging/mine.resnet.high",
        "persistent://vision/staging/mine.resnet.normal",
        "persistent://vision/staging/mine.resnet.low",
    ]
    assert names.dead("resnet") == "persistent://vision/staging/mine.resnet.dead"
    assert names.inbox("x").startswith("non-persistent://vision/staging/mine.inbox.")


def test_no_queue_has_a_topic_of_another_or_one_that_is_taken_for_a_partition():
    names = Names("public/default/dumbwaiter")
    queues = ["a", "a.high", "a.dead", "queues", "check", "inbox.x", "a-partition-1"]
    topics = [topic for queue in queues for topic in (*names.lanes(queue), names.dead(queue), names.delayed(queue))]
    topics += [names.register, names.check, names.inbox("x")]
    assert len(set(topics)) == len(topics)
    assert not any(topic.rpartition("-partition-")[2].isdigit() for topic in topics)


@pytest.mark.parametrize("text", ["persistent://a/b/c", "non-persistent://public/default/x.y"])
def test_a_whole_name_of_a_topic_can_be_a_reply_address(text):
    assert is_topic(text)


@pytest.mark.parametrize("text", ["", "c", "a/b/c", "persistent://a/b", "http://a/b/c", "persistent://a//c"])
def test_nothing_else_can(text):
    assert not is_topic(text)


def test_a_message_travels_in_properties_and_back():
    message = Message(body=b"\xff", subject="naïve ☕", priority=3, extensions={"note": "a=1"})
    assert from_attributes(attributes_of(properties_of(message)), message.body) == message


def test_attributes_that_are_too_long_are_told_before_anything_is_sent():
    with pytest.raises(MessageTooLargeError) as caught:
        properties_of(Message(extensions={"note": "x" * PROPERTIES_LIMIT}))
    assert caught.value.limit == PROPERTIES_LIMIT


def test_half_of_a_surrogate_pair_does_not_keep_a_message_from_travelling():
    assert properties_of(Message(subject="\ud800"))["ce_subject"] == "?"


def test_the_time_of_an_event_stands_for_one_that_the_attributes_do_not_give():
    assert attributes_of({}, 1.5) == {"time": "1.5"}
    assert from_attributes(attributes_of({"time": "2.5"}, 1.5), b"").time == 2.5


def test_a_copy_keeps_what_the_producer_wrote_and_nothing_of_ours():
    came = {"id": "a", "colour": "red", BEFORE: "4", DUE: "17", f"{OWN}other": "x"}
    assert again(came, "other", before=2) == {"id": "a", "colour": "red", BEFORE: "2"}
    assert again({}, "pulsar-1-2-0", before=0, event_time=1.0) == {"ce_id": "pulsar-1-2-0", "ce_time": "1.0"}


def test_deliveries_of_earlier_copies_count_too():
    assert delivery_count_of({}, 0) == 1
    assert delivery_count_of({BEFORE: "3"}, 2) == 6
    assert delivery_count_of({BEFORE: "-3"}, 0) == 1
    assert delivery_count_of({BEFORE: "9" * 30}, 0) == 1


def test_of_a_long_detail_the_end_is_kept():
    detail = dead({}, reason="r", detail=f"{'é' * DETAIL_LIMIT} the error", dead_at=1.0)[DETAIL]
    assert detail.endswith("é the error")
    assert len(detail.encode()) <= DETAIL_LIMIT + 10


@pytest.mark.parametrize("properties", [{}, {DUE: "nan", LANE: "x"}, {DUE: "soon", LANE: "7"}])
def test_a_delayed_message_that_somebody_else_wrote_is_due_at_once(properties):
    assert due_of(properties) == (0.0, NORMAL)


@given(st.builds(Position, st.integers(0, 2**60), st.integers(0, 2**60)))
def test_positions_are_keys_and_keys_are_positions(position):
    assert position_of(position.key) == position


@pytest.mark.parametrize("key", ["", "no key", "1", "1-", "-1", "1-2-3", "a-b", "1-٣", f"1-{'9' * 20}"])
def test_what_is_no_key_is_none(key):
    assert position_of(key) is None


def test_what_is_gone_is_named_and_other_peoples_messages_name_nothing():
    assert gone_of(gone(["1-2", "1-3"])) == ["1-2", "1-3"]
    assert gone_of(b"\xff") == gone_of(b"{}") == []


def test_the_size_of_a_batch_is_read_from_an_id():
    # ledger 300, entry 7, batch index 2, a set of two numbers, batch size 130
    assert batch_size(bytes.fromhex("08ac02 1007 2002 2a020102 308201")) == 130
    assert batch_size(bytes.fromhex("08ac02 1007")) == 1


@given(st.binary(max_size=20))
def test_an_id_of_another_form_ends_too(text):
    assert batch_size(text) >= 0


def test_lanes_that_have_messages_are_asked_for_their_parts_and_the_others_for_one():
    assert shares(8, {HIGH, NORMAL, LOW}, at_once=16) == [5, 2, 1]
    assert shares(8, {NORMAL}, at_once=16) == [1, 8, 1]
    assert shares(100, {NORMAL}, at_once=16) == [1, 16, 1]
    assert shares(1, set(), at_once=16) == [1, 1, 1]
    assert shares(0, {HIGH}, at_once=16) == [0, 0, 0]


@given(st.integers(1, 1000), st.sets(st.sampled_from([HIGH, NORMAL, LOW])))
def test_no_lane_is_left_out_while_somebody_waits(wanted, warm):
    assert all(1 <= share <= 16 for share in shares(wanted, warm, at_once=16))


# --- whoever was stopped does not know yet that its connection is lost ---

GIVEN_UP_AFTER = 30.0
"""Seconds of silence after which a server may give up a connection: its keepAliveIntervalSeconds by default."""


class Connected:
    def is_connected(self):
        return True


@pytest.mark.anyio
async def test_what_is_held_is_lost_to_whoever_was_stopped_for_as_long_as_a_server_waits():
    tap = LaneTap(1, "topic", come=list, batch_came=lambda *_: None)
    tap._consumer = Connected()
    assert tap.is_up
    tap.seen_at = time.monotonic() - GIVEN_UP_AFTER
    assert not tap.is_up
