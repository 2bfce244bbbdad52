"""Messages as Service Bus takes them, and as the client library gives them back."""

from __future__ import annotations

import datetime as dt
import uuid
from types import SimpleNamespace

import msgspec
import pytest
from azure.servicebus.amqp import AmqpMessageBodyType

from dumbwaiter.brokers.servicebus.wire import (
    COUNT,
    LONGEST_DETAIL,
    PREFIX,
    UNRECORDED,
    largest_body,
    letter_of,
    message_nbytes,
    message_of,
    note_of,
    outgoing,
    read,
)
from dumbwaiter.message import Message
from dumbwaiter.testing.conformance.sending import message_with_everything

NOW = dt.datetime(2026, 11, 26, tzinfo=dt.UTC)


def received(**fields):
    """What the client library gives, as far as it is read."""
    usual = {
        "application_properties": None,
        "body_type": AmqpMessageBodyType.DATA,
        "body": iter([b"body"]),
        "message_id": None,
        "correlation_id": None,
        "reply_to": None,
        "subject": None,
        "content_type": None,
        "sequence_number": 7,
        "lock_token": uuid.UUID(int=1),
        "locked_until_utc": NOW,
        "enqueued_time_utc": NOW,
        "delivery_count": 0,
        "dead_letter_reason": None,
        "dead_letter_error_description": None,
    }
    return SimpleNamespace(**{**usual, **fields})


def test_attributes_are_application_properties_and_the_id_is_the_message_id():
    sent = outgoing(Message(id="m1", body=b"\xff", content_type="image/png", priority=3))
    assert sent.message_id == "m1"
    assert sent.content_type == "image/png"
    assert sent.application_properties[f"{PREFIX}priority"] == "3"
    assert f"{PREFIX}datacontenttype" not in sent.application_properties
    assert b"".join(sent.body) == b"\xff"


def test_a_content_type_that_is_not_ascii_is_an_application_property_for_amqps_own_is_a_symbol():
    sent = outgoing(Message(content_type="image/t\xe9"))
    assert sent.content_type is None
    assert sent.application_properties[f"{PREFIX}datacontenttype"] == "image/t\xe9"


@pytest.mark.parametrize("content_type", ["image/jpeg", "image/t\xe9", None])
def test_what_was_written_is_read_unchanged(content_type):
    message = msgspec.structs.replace(message_with_everything(), content_type=content_type)
    sent = outgoing(message, count=2)
    properties = {name.encode(): value for name, value in sent.application_properties.items()}
    raw = received(
        application_properties=properties,
        body=iter([message.body]),
        message_id=sent.message_id,
        content_type=sent.content_type,
        delivery_count=1,
    )
    arrived = read(raw)
    assert message_of(arrived) == message
    assert arrived.delivery_count == 3


def test_an_id_that_service_bus_does_not_take_goes_in_the_attributes_only():
    sent = outgoing(Message(id="x" * 200))
    assert sent.message_id != "x" * 200
    assert sent.application_properties[f"{PREFIX}id"] == "x" * 200


def test_a_copy_has_a_message_id_of_its_own_for_queues_that_drop_doubles():
    assert outgoing(Message(id="m1"), is_copy=True).message_id != "m1"


def test_a_due_message_is_scheduled():
    due = NOW.timestamp()
    assert outgoing(Message(), due=due).scheduled_enqueue_time_utc == NOW


def test_a_bare_body_is_a_message_with_the_producers_own_properties():
    raw = received(
        application_properties={b"colour": b"red", b"pages": 3, b"since": NOW},
        message_id="theirs",
        correlation_id="c1",
        reply_to="r1",
        subject="s1",
        content_type="text/plain",
    )
    message = message_of(read(raw))
    assert (message.id, message.correlation_id, message.reply_to, message.subject) == ("theirs", "c1", "r1", "s1")
    assert (message.body, message.content_type) == (b"body", "text/plain")
    assert message.extensions == {"colour": "red", "pages": "3", "since": NOW.isoformat()}


def test_an_attribute_wins_over_the_property_of_the_same_meaning():
    raw = received(application_properties={b"cloudEvents:correlationid": b"ours"}, correlation_id="theirs")
    assert message_of(read(raw)).correlation_id == "ours"


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (AmqpMessageBodyType.VALUE, b"text", b"text"),
        (AmqpMessageBodyType.VALUE, "text", b"text"),
        (AmqpMessageBodyType.VALUE, {b"a": [1, b"two", uuid.UUID(int=0)]}, b'{"a":[1,"two","' + b"0" * 8 + b"-0000"),
        (AmqpMessageBodyType.SEQUENCE, [[1, 2]], b"[[1,2]]"),
    ],
)
def test_a_body_of_another_kind_is_its_text_or_its_value_as_json(kind, body, expected):
    assert read(received(body_type=kind, body=body)).body.startswith(expected)


def test_a_body_that_cannot_be_read_is_shown_with_its_attributes():
    arrived = read(
        received(
            body_type=AmqpMessageBodyType.VALUE, body=object(), application_properties={b"a": b"b"}, message_id="i"
        )
    )
    assert arrived.fault is not None
    message = message_of(arrived)
    assert message.id == "i"
    assert '"a":"b"' in message.extensions["headers"]


@pytest.mark.parametrize("count", ["nonsense", -1, 2**40, None, 1.5])
def test_a_count_that_somebody_else_wrote_counts_nothing(count):
    assert read(received(application_properties={COUNT.encode(): count})).delivery_count == 0


def test_a_dead_letter_tells_which_delivery_it_was_and_when():
    detail = "Traceback\n  ValueError: naïve"
    raw = received(dead_letter_reason="model-error", dead_letter_error_description=note_of(detail, 4, 1_764_000_000.25))
    letter = letter_of("q", "1-7", read(raw))
    assert (letter.reason, letter.detail, letter.delivery_count, letter.dead_at) == (
        "model-error",
        detail,
        4,
        1_764_000_000.25,
    )


def test_a_dead_letter_without_a_detail_has_none():
    letter = letter_of("q", "1-7", read(received(dead_letter_error_description=note_of("", 1, 5.0))))
    assert (letter.detail, letter.delivery_count, letter.dead_at, letter.reason) == ("", 1, 5.0, UNRECORDED)


def test_of_a_long_detail_the_end_is_kept():
    assert "the end\n\n(delivery" in note_of("x" * 10 * LONGEST_DETAIL + "the end", 1, 0.0)
    assert len(note_of("x" * 10 * LONGEST_DETAIL, 1, 0.0)) < 4096


@pytest.mark.parametrize("said", ["died (delivery 9, dead since never)", "(delivery x, dead since 1)", "plain"])
def test_a_dead_letter_of_somebody_else_is_shown_as_it_is(said):
    letter = letter_of("q", "1-7", read(received(dead_letter_error_description=said, delivery_count=10)))
    assert (letter.detail, letter.delivery_count, letter.dead_at) == (said, 10, NOW.timestamp())


def test_attributes_beyond_their_room_count_as_body():
    assert message_nbytes(Message(body=b"x" * 10)) == 10
    assert message_nbytes(Message(body=b"x", extensions={"much": "y" * 20_000})) > 10_000
    assert largest_body() < 262_144
