"""Keys and fields, there and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.brokers.redis.keys import (
    fields_of,
    inbox_address,
    inbox_keys,
    is_dead_key,
    keys_of,
    parse_inbox_address,
    read_fields,
)
from dumbwaiter.envelope import from_attributes
from dumbwaiter.message import Message

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", fullmatch=True)


@given(NAMES, NAMES)
def test_no_two_queues_share_a_key_and_all_keys_of_one_are_in_one_slot(one, two):
    assert len(set(keys_of("p", one))) == len(keys_of("p", one))
    assert all(f"{{{one}}}" in key for key in keys_of("p", one))
    if one != two:
        assert not set(keys_of("p", one)) & set(keys_of("p", two))


def test_the_stream_for_other_producers_is_the_plain_one():
    assert keys_of("dumbwaiter", "resnet").normal == "dumbwaiter:{resnet}"


@given(st.binary(), st.dictionaries(st.from_regex(r"(?!ce-)[a-z0-9]{1,20}", fullmatch=True), st.text(), max_size=3))
def test_a_message_comes_back_from_its_fields(body, extensions):
    known = {"id", "source", "type", "subject", "time", "datacontenttype", "dataref", "traceparent", "specversion"}
    known |= {"correlationid", "replyto", "deadline", "priority", "tenant", "idempotencykey"}
    extensions = {
        name: value.encode(errors="replace").decode() for name, value in extensions.items() if name not in known
    }
    message = Message(body=body, extensions=extensions)
    fields = [one if isinstance(one, bytes) else one.encode() for one in fields_of(message)]
    attributes, found = read_fields(fields)
    assert from_attributes(attributes, found) == message


def test_an_attribute_named_body_is_not_taken_for_the_body():
    message = Message(body=b"real", extensions={"body": "other"})
    fields = [one if isinstance(one, bytes) else one.encode() for one in fields_of(message)]
    attributes, body = read_fields(fields)
    assert from_attributes(attributes, body) == message


def test_the_body_is_the_field_of_that_name_or_else_the_first():
    assert read_fields([b"subject", b"s", b"body", b"b"]) == ({"subject": "s"}, b"b")
    assert read_fields([b"payload", b"p", b"subject", b"s"]) == ({"subject": "s"}, b"p")


def test_an_attribute_that_is_no_text_is_shown_with_backslashes():
    assert read_fields([b"body", b"", b"note", b"\xff"]) == ({"note": "\\xff"}, b"")


def test_an_inbox_address_leads_back_to_its_keys():
    address = inbox_address("p", "0af3", 7)
    assert parse_inbox_address("p", address) == ("0af3", "7")
    assert inbox_keys("p", "0af3").replies == "p:inbox:{0af3}"


def test_what_is_no_inbox_of_this_prefix_leads_nowhere():
    for address in ("", "p:inbox:0af3", "q:inbox:0af3/7", "p:inbox:{x}/7", "p:inbox:0af3/7\n", "http://x/7"):
        assert parse_inbox_address("p", address) is None


def test_only_ids_of_a_stream_are_keys_of_dead_letters():
    assert is_dead_key("1764000000000-0")
    assert not any(map(is_dead_key, ("", "no key", "1", "-", "1-", "*", "+", "1-1\n", "1" * 21 + "-0")))
