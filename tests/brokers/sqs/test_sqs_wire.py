from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.brokers.served import BAD_ENVELOPE, readable_part
from dumbwaiter.brokers.sqs.wire import (
    LONGEST_DETAIL,
    UNRECORDED,
    Note,
    burial_of,
    entry_nbytes,
    entry_of,
    is_key,
    largest_body,
    letter_of,
    message_nbytes,
    message_of,
    read,
)
from dumbwaiter.message import Message

LIMIT = 262_144


def received(entry, *, count=1, sent=1_764_000_000_000, message_id="sqs-id"):
    """*entry* as ReceiveMessage gives it."""
    system = {"ApproximateReceiveCount": str(count), "SentTimestamp": str(sent)}
    return {
        "MessageId": message_id,
        "ReceiptHandle": "handle",
        "Body": entry["MessageBody"],
        "Attributes": system,
        "MessageAttributes": entry.get("MessageAttributes"),
    }


def foreign(body, **attributes):
    """What some producer without dumbwaiter sends."""
    values = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
    return received({"MessageBody": body, "MessageAttributes": values})


@given(st.binary() | st.text().map(lambda text: text.encode(errors="replace")), st.text(max_size=20))
def test_every_message_comes_back_as_it_was(body, note):
    message = Message(body=body, extensions={"note": note})
    assert message_of(read(received(entry_of(message)))) == message


@given(st.binary())
def test_sqs_takes_every_body(body):
    text = entry_of(Message(body=body))["MessageBody"]
    assert text
    assert all(c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000" for c in text)


def test_text_stands_there_as_it_is():
    entry = entry_of(Message(body='{"x": "naïve ☕"}'.encode()))
    assert entry["MessageBody"] == '{"x": "naïve ☕"}'
    assert set(entry["MessageAttributes"]) == {"cloudevents"}


def test_no_message_has_more_attributes_than_sqs_takes():
    note = Note(reason="model-error", detail="x", count=3)
    entry = entry_of(Message(body=b"\xff"), count=3, due=1.0, note=note)
    assert len(entry["MessageAttributes"]) <= 10


def test_a_body_as_large_as_promised_fits_with_all_that_goes_with_it():
    message = Message(body=b"\xff" * largest_body(LIMIT), extensions={"note": "n" * 4000})
    assert message_nbytes(message) <= largest_body(LIMIT)
    note = Note(reason="r" * 500, detail="☕" * 100_000, count=5)
    assert entry_nbytes(burial_of(message, note, LIMIT)) <= LIMIT


@given(st.integers(0, 200_000), st.integers(0, 60_000), st.booleans())
def test_what_passes_the_check_of_sizes_fits(nbytes, extension, is_text):
    body = (b"x" if is_text else b"\xff") * nbytes
    message = Message(body=body, extensions={"note": "n" * extension})
    if message_nbytes(message) <= largest_body(LIMIT):
        assert entry_nbytes(entry_of(message, count=10, due=1_764_000_000.0)) <= LIMIT


def test_the_end_of_a_long_detail_is_kept():
    entry = burial_of(Message(), Note(reason="model-error", detail="x" * 50_000 + "the error"), LIMIT)
    (detail,) = [letter_of("q", read(received(entry))).detail]
    assert detail.endswith("the error")
    assert len(detail) == LONGEST_DETAIL


def test_of_what_cannot_be_read_the_body_and_the_reason_are_buried_where_there_is_no_room_for_more():
    unread = readable_part({"long": '"' * 50_000}, b"x" * (LIMIT - 100_000), "i")
    entry = burial_of(unread, Note(reason=BAD_ENVELOPE, detail="why " * 100), LIMIT)
    letter = letter_of("q", read(received(entry)))
    assert (letter.message.body, letter.reason) == (unread.body, BAD_ENVELOPE)
    assert entry_nbytes(entry) <= LIMIT


def test_a_message_that_leaves_no_room_for_a_note_is_buried_whole():
    message = Message(body=b"x" * (LIMIT - 400))
    entry = burial_of(message, Note(reason="model-error", detail="why " * 100), entry_nbytes(entry_of(message)))
    letter = letter_of("q", read(received(entry)))
    assert (letter.message, letter.reason) == (message, UNRECORDED)


def test_a_bare_body_is_a_request_named_as_sqs_names_it():
    message = message_of(read(foreign("plain")))
    assert (message.id, message.body, message.priority) == ("sqs-id", b"plain", 0)


def test_message_attributes_of_others_are_cloudevents_attributes():
    raw = foreign("{}", **{"ce-id": "42", "content-type": "application/json", "tenant": "acme", "x.y": "z"})
    raw["MessageAttributes"]["priority"] = {"DataType": "Number", "StringValue": "5"}
    raw["MessageAttributes"]["blob"] = {"DataType": "Binary", "BinaryValue": b"text"}
    message = message_of(read(raw))
    assert (message.id, message.content_type, message.tenant, message.priority) == ("42", "application/json", "acme", 5)
    assert message.extensions == {"x.y": "z", "blob": "text"}


def test_structured_mode_is_read():
    event = {"specversion": "1.0", "id": "e1", "type": "t", "source": "/s", "data": {"x": 1}}
    raw = foreign(json.dumps(event), **{"content-type": "application/cloudevents+json"})
    message = message_of(read(raw))
    assert (message.id, message.body) == ("e1", b'{"x":1}')


@pytest.mark.parametrize(
    ("body", "attributes"),
    [
        ("no base64!", {"dumbwaiter.body": "base64"}),
        ("x", {"cloudevents": "{"}),
        ("x", {"cloudevents": "[1]"}),
        ("x", {"cloudevents": "[" * 10_000}),
    ],
)
def test_what_cannot_be_read_has_a_fault_and_is_shown_all_the_same(body, attributes):
    arrived = read(foreign(body, **attributes))
    assert arrived.fault
    assert message_of(arrived).body == body.encode()


def test_numbers_that_are_none_count_as_nothing():
    arrived = read(foreign("x", **{"dumbwaiter.count": "many", "dumbwaiter.due": "-inf", "dumbwaiter.dead": "{"}))
    assert (arrived.count, arrived.due, arrived.note) == (0, 0.0, None)
    assert read(foreign("x", **{"dumbwaiter.count": "nan"})).delivery_count == 1


def test_deliveries_before_a_copy_are_counted():
    raw = received(entry_of(Message(), count=3), count=2)
    assert read(raw).delivery_count == 5


def test_a_dead_letter_tells_why_and_when():
    entry = burial_of(Message(body=b"\xff"), Note(reason="model-error", detail="Traceback", count=4), LIMIT)
    letter = letter_of("q", read(received(entry, count=9)))
    assert (letter.reason, letter.detail, letter.delivery_count) == ("model-error", "Traceback", 4)
    assert letter.dead_at == 1_764_000_000.0
    assert is_key(letter.key)


def test_a_dead_letter_that_a_redrive_policy_moved_has_no_reason():
    letter = letter_of("q", read(received({"MessageBody": "x"}, count=4)))
    assert (letter.reason, letter.delivery_count) == (UNRECORDED, 3)


def test_older_dead_letters_have_smaller_keys():
    places = ((5, "z"), (10, "a"), (10, "b"))
    keys = [read(received({"MessageBody": "x"}, sent=sent, message_id=name)).key for sent, name in places]
    assert keys == sorted(keys)


def test_base64_of_others_is_left_alone():
    text = base64.b64encode(b"\xff").decode()
    assert message_of(read(foreign(text))).body == text.encode()
