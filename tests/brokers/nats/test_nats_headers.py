"""Messages as NATS carries them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.brokers.nats.headers import (
    Place,
    attributes_of,
    cut,
    encode,
    escape,
    headers_nbytes,
    id_of,
    is_reply_of,
    number,
    parse_stamp,
    place_of,
    schedule_at,
)
from dumbwaiter.envelope import from_attributes
from dumbwaiter.message import Message

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


def over_the_wire(message: Message) -> Message:
    headers, payload = encode(message)
    assert all(value.isascii() and value.isprintable() and " " not in value for value in headers.values())
    return from_attributes(attributes_of(headers), payload)


@given(text, text, st.binary(max_size=20))
def test_every_attribute_comes_back(subject, tenant, body):
    message = Message(body=body, subject=subject, tenant=tenant, extensions={"note": subject})
    assert over_the_wire(message) == message


def test_attributes_stand_as_cloudevents_says():
    headers, payload = encode(Message(body=b"x", id="1", tenant='a "été" 50%'))
    assert payload == b"x"
    assert headers["ce-id"] == "1"
    assert headers["ce-specversion"] == "1.0"
    assert headers["ce-tenant"] == "a%20%22%C3%A9t%C3%A9%22%2050%25"


def test_an_attribute_whose_name_no_header_can_have_travels_in_structured_mode():
    message = Message(body=b"\xff", extensions={"two words": "x\r\ny"})
    assert "ce-two words" not in encode(message)[0]
    assert over_the_wire(message) == message


def test_attributes_beyond_what_the_server_takes_travel_in_structured_mode():
    message = Message(extensions={"long": "x" * 100_000})
    headers, _ = encode(message)
    assert headers_nbytes(headers) < 1000
    assert over_the_wire(message) == message


def test_a_producers_own_headers_are_attributes_and_the_servers_are_not():
    headers = {"Priority": "5", "Nats-Msg-Id": "1", "Dumbwaiter-Deliveries": "3", "Content-Type": "image/png"}
    assert attributes_of(headers) == {"priority": "5", "content-type": "image/png"}
    assert attributes_of(None) == {}


def test_a_message_without_an_id_is_called_after_its_place():
    place = Place(17, 255, 1)
    assert id_of(None, place) == id_of({}, Place(17, 255, 2)) == "nats-11-ff"
    assert id_of({"Nats-Msg-Id": "%C3%A9t%C3%A9"}, place) == "été"


def test_the_reply_of_a_delivery_tells_its_place():
    assert place_of("$JS.ACK.s.c.2.17.4.1795642467749423598.0") == Place(17, 1795642467749423598, 2)
    assert place_of("$JS.ACK.hub.hash.s.c.2.17.4.99.0.random") == Place(17, 99, 2)
    assert place_of("") is None
    assert place_of("_INBOX.x") is None
    assert place_of("$JS.ACK.s.c.two.17.4.99.0") is None


def test_a_count_that_somebody_else_wrote_is_none():
    assert number({"Dumbwaiter-Deliveries": "7"}, "Dumbwaiter-Deliveries") == 7
    for value in ("", "-1", "many", "9" * 30):
        assert number({"n": value}, "n") == 0
    assert number(None, "n") == 0


@given(text, st.integers(min_value=0, max_value=200))
def test_a_long_text_is_cut_to_its_end(long, room):
    assert len(cut(long, room)) <= room
    assert escape(long).endswith(cut(long, room))


def test_a_short_text_is_not_cut():
    assert cut("line\nline", 100) == "line%0Aline"


def test_a_schedule_is_in_utc():
    assert schedule_at(0.25) == "@at 1970-01-01T00:00:00.250000Z"


def test_the_servers_stamps_are_read_to_less_than_a_microsecond():
    assert parse_stamp("1970-01-01T00:00:01.500000001Z") == pytest.approx(1.5, abs=1e-6)
    assert parse_stamp("1970-01-01T00:00:01Z") == 1.0


@pytest.mark.parametrize(
    ("reply", "is_one"),
    [
        ("$JS.ACK.s.c.2.17.4.1795642467749423598.0", True),
        ("$JS.ACK.hub.hash.s.c.2.17.4.99.0.random", True),
        ("$JS.ACK.other.c.2.17.4.1795642467749423598.0", False),
        ("$JS.ACK.hub.hash.other.s.2.17.4.99.0.random", False),
        ("$JS.ACK.s", False),
        ("$JS.ACK.s.c.two.17.4.99.0", False),
        ("dumbwaiter.normal.s", False),
        ("", False),
    ],
)
def test_a_reply_subject_tells_whose_stream_it_is_of(reply, is_one):
    assert is_reply_of("s", reply) == is_one
