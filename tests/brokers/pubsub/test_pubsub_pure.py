"""Names, places and messages, without any server."""

from __future__ import annotations

import re
import sys

import pytest
from google.pubsub_v1 import types
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.pubsub.api import chunks
from dumbwaiter.brokers.pubsub.examining import findings_of
from dumbwaiter.brokers.pubsub.inbox import EXPIRES_AFTER, is_old
from dumbwaiter.brokers.pubsub.location import GOOGLE, location_of
from dumbwaiter.brokers.pubsub.names import LONGEST, PARTS, id_of, is_inbox, new_inbox, queue_of
from dumbwaiter.brokers.pubsub.topics import visibility_of
from dumbwaiter.brokers.pubsub.wire import (
    DELIVERY_LIMIT,
    LARGEST,
    LARGEST_BODY,
    UNRECORDED,
    Note,
    again,
    burial_of,
    is_key,
    letter_of,
    message_nbytes,
    message_of,
    nbytes_of,
    outgoing,
    read,
)
from dumbwaiter.brokers.served import BAD_ENVELOPE, readable_part
from dumbwaiter.errors import ConfigError, MissingExtraError
from dumbwaiter.message import Message, is_queue_name
from dumbwaiter.policies.lanes import NORMAL

queues = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", fullmatch=True).filter(is_queue_name)
prefixes = st.from_regex(r"[A-FH-Za-fh-z][A-Za-z0-9-]{0,19}", fullmatch=True)


@pytest.mark.parametrize("package", ["google", "grpc"])
def test_a_client_library_that_is_missing_is_named_with_its_extra(package, monkeypatch):
    for name in list(sys.modules):
        if name.partition(".")[0] == package or name.startswith("dumbwaiter.brokers.pubsub"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as caught:
        open_broker("pubsub://a-project")
    assert (caught.value.package, caught.value.extra) == (package, "pubsub")


# --- places ---


def test_a_project_is_enough():
    location = location_of("pubsub://my-project")
    assert (location.project, location.place, location.prefix) == ("my-project", GOOGLE, "dumbwaiter")
    assert not location.is_emulator


def test_an_emulator_is_named_by_an_option_or_the_environment(monkeypatch):
    assert location_of("pubsub://p?emulator=localhost:8085").place == "localhost:8085"
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "[::1]:8086")
    location = location_of("pubsub://p")
    assert (location.place, location.is_emulator) == ("[::1]:8086", True)
    assert not location_of("pubsub://p?endpoint=europe-west1-pubsub.googleapis.com").is_emulator


def test_an_endpoint_has_the_usual_port_unless_it_names_one():
    assert location_of("pubsub://p?endpoint=europe-west1-pubsub.googleapis.com").place.endswith(".com:443")
    assert location_of("pubsub://p?endpoint=host:444").place == "host:444"


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("pubsub:my-project", "not the address"),
        ("pubsub://My_Project", "no id of a Google Cloud project"),
        ("pubsub://p/path", "no id of a Google Cloud project"),
        ("pubsub://", "no id of a Google Cloud project"),
        ("pubsub://p?prefx=a", "did you mean 'prefix'"),
        ("pubsub://p?prefix=a&prefix=b", "twice"),
        ("pubsub://p?prefix=with.dot", "prefix"),
        ("pubsub://p?prefix=1a", "prefix"),
        ("pubsub://p?prefix=google", "prefix"),
        ("pubsub://p?prefix=", "prefix"),
        ("pubsub://p?emulator=localhost", "emulator"),
        ("pubsub://p?emulator=localhost:99999", "emulator"),
        ("pubsub://p?endpoint=https://host", "endpoint"),
        ("pubsub://p?endpoint=a&emulator=b:1", "one of them"),
    ],
)
def test_what_is_wrong_in_a_url_is_named(url, word):
    with pytest.raises(ConfigError, match=word):
        location_of(url)


def test_credentials_in_a_url_are_refused_and_not_shown():
    with pytest.raises(ConfigError, match="GOOGLE_APPLICATION_CREDENTIALS") as caught:
        location_of("pubsub://key:secret@my-project")
    assert "secret" not in str(caught.value)


# --- names ---


def test_the_usual_lane_has_the_name_that_other_producers_expect():
    assert id_of("dumbwaiter", "resnet-50.v2_b", NORMAL) == "dumbwaiter.resnet-50.v2_b"


@given(prefixes, queues, st.sampled_from(PARTS))
def test_pubsub_takes_every_name(prefix, queue, part):
    name = id_of(prefix, queue, part)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9._~+%-]{2,254}", name)
    assert len(name) <= LONGEST


@given(prefixes, queues)
def test_every_name_is_read_back_and_the_other_parts_of_a_queue_are_no_queues(prefix, queue):
    for part in PARTS:
        assert queue_of(prefix, id_of(prefix, queue, part)) == (queue if part == NORMAL else None)


@given(st.lists(st.tuples(prefixes, queues, st.sampled_from(PARTS)), min_size=2, unique=True))
def test_no_two_become_one(places):
    assert len({id_of(*place) for place in places}) == len(places)


def test_an_inbox_is_no_queue_and_nothing_else_is_an_inbox():
    address = new_inbox("dumbwaiter")
    assert is_inbox("dumbwaiter", address)
    assert queue_of("dumbwaiter", address) is None
    for other in (f"{address}0", address[:-1], "dumbwaiter.resnet", "", new_inbox("other"), f"x{address}"):
        assert not is_inbox("dumbwaiter", other)


def test_an_inbox_is_swept_when_its_subscription_may_have_expired_and_never_without_our_label():
    now = 1_800_000_000.0
    assert is_old(str(int(now - EXPIRES_AFTER - 1)), now)
    for made in (None, "", "yesterday", "²", str(int(now))):
        assert not is_old(made, now)


# --- messages ---


def received(sent, *, attempt=1, number="7"):
    one = types.ReceivedMessage.pb()(ack_id="a", delivery_attempt=attempt, message=sent)
    one.message.message_id = number
    one.message.publish_time.FromMilliseconds(1_764_000_000_250)
    return read(one)


def foreign(body=b"x", *, attempt=1, **attributes):
    sent = types.PubsubMessage.pb()(data=body, attributes={k.replace("__", "-"): v for k, v in attributes.items()})
    return received(sent, attempt=attempt)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=2000)


@given(st.binary(max_size=100), st.dictionaries(st.from_regex(r"[a-z0-9]{1,300}", fullmatch=True), texts, max_size=5))
def test_a_message_comes_out_as_it_went_in_however_long_its_attributes_are(body, extensions):
    known = {"id", "source", "type", "specversion", "subject", "time", "deadline", "priority", "data"}
    extensions = {name: value for name, value in extensions.items() if name not in known}
    message = Message(body=body, id="i", tenant="t" * 1500, extensions=extensions)
    sent = outgoing(message)
    assert all(len(value.encode()) <= 1024 and len(name) <= 256 for name, value in sent.attributes.items())
    assert message_of("t", received(sent)) == message


def test_more_attributes_than_pubsub_takes_go_with_the_body():
    message = Message(body=b"x", extensions={f"a{i}": str(i) for i in range(300)})
    sent = outgoing(message)
    assert len(sent.attributes) <= 100
    assert message_of("t", received(sent)).extensions == message.extensions


def test_a_message_without_attributes_is_none_that_pubsub_would_refuse_as_empty():
    assert outgoing(Message()).attributes["ce-id"]


def test_a_bare_body_has_an_id_that_no_other_topic_gives():
    assert message_of("dumbwaiter.resnet", foreign()).id == "dumbwaiter.resnet-7"
    assert message_of("dumbwaiter.other", foreign()).id == "dumbwaiter.other-7"


def test_attributes_of_others_are_read_and_those_of_google_are_not():
    arrived = foreign(googclient_schemaencoding="JSON", tenant="acme", **{"Content-Type": "text/plain"})
    message = message_of("t", arrived)
    assert (message.tenant, message.content_type, message.extensions) == ("acme", "text/plain", {})


@pytest.mark.parametrize("head", ["x", "-1", "5", "999999", ""])
def test_a_head_that_is_none_is_a_fault_and_what_can_be_shown_is_shown(head):
    arrived = foreign(b"[1,2]body", **{"dumbwaiter-head": head})
    assert arrived.fault is not None
    assert message_of("t", arrived).id == "t-7"


@pytest.mark.parametrize("text", ["nan", "-inf", "1e99", "x", "-5", ""])
def test_counts_and_times_that_others_wrote_are_no_harm(text):
    arrived = foreign(**{"dumbwaiter-count": text, "dumbwaiter-due": text, "dumbwaiter-dead": text})
    assert (arrived.count, arrived.due, arrived.note, arrived.delivery_count) == (0, 0.0, None, 1)


def test_a_copy_counts_on_and_pulls_before_it_was_due_do_not_count():
    assert foreign(attempt=3, **{"dumbwaiter-count": "4"}).delivery_count == 7
    sent = 1_764_000_000.25
    assert foreign(attempt=2, **{"dumbwaiter-due": str(sent + 60)}).delivery_count == 1
    assert foreign(attempt=9, **{"dumbwaiter-due": str(sent + 3600)}).delivery_count == 3
    assert foreign(attempt=1, **{"dumbwaiter-due": str(sent + 3600)}).delivery_count == 1
    assert foreign(attempt=0).delivery_count == 1, "a subscription without dead-letter policy does not count"


def test_a_copy_of_what_cannot_be_read_is_what_came():
    arrived = foreign(b"body", priority="very", attempt=2)
    copy = received(again(arrived, topic="t", count=1), number="8")
    assert (copy.body, copy.attributes["priority"], copy.delivery_count) == (b"body", "very", 2)
    assert copy.attributes["ce-id"] == "t-7"


def test_a_dead_letter_keeps_the_end_of_a_long_detail():
    note = Note(reason="model-error", detail="x" * 100_000 + "the error", count=3)
    letter = letter_of("q", "t", received(burial_of(Message(id="i", body=b"x"), note)))
    assert (letter.reason, letter.delivery_count, letter.message.id) == ("model-error", 3, "i")
    assert letter.detail.endswith("the error")
    assert letter.dead_at == 1_764_000_000.25


def test_a_message_that_leaves_no_room_is_buried_whole_without_a_note():
    buried = burial_of(Message(id="i", body=bytes(LARGEST - 300)), Note(reason="r", detail="d" * 8000))
    assert letter_of("q", "t", received(buried)).reason == UNRECORDED
    assert len(buried.data) == LARGEST - 300


def test_of_what_cannot_be_read_the_body_and_the_reason_are_buried_where_there_is_no_room_for_more():
    unread = readable_part({f"n{i}": '"' * 1024 for i in range(90)}, bytes(LARGEST - 100_000), "i")
    buried = burial_of(unread, Note(reason=BAD_ENVELOPE, detail="d" * 8000))
    letter = letter_of("q", "t", received(buried))
    assert (len(letter.message.body), letter.reason) == (LARGEST - 100_000, BAD_ENVELOPE)
    assert nbytes_of(buried) <= LARGEST


def test_what_pubsub_itself_gave_up_says_so():
    arrived = foreign(CloudPubSubDeadLetterSourceDeliveryCount="100", CloudPubSubDeadLetterSourceSubscription="s")
    letter = letter_of("q", "t", arrived)
    assert (letter.reason, letter.delivery_count, letter.message.extensions) == (DELIVERY_LIMIT, 100, {})


def test_keys_of_dead_letters_sort_by_age_and_nothing_else_is_one():
    older, newer = received(outgoing(Message()), number="9"), received(outgoing(Message()), number="10")
    assert older.key < newer.key
    assert is_key(older.key)
    for other in ("", "no key at all", "-", "1764000000250", "1764000000250-", "²764000000250-1"):
        assert not is_key(other)


def test_the_largest_body_fits_with_its_attributes_and_attributes_beyond_their_room_count():
    largest = Message(body=bytes(LARGEST_BODY), extensions={f"a{i}": "v" * 100 for i in range(60)})
    assert message_nbytes(largest) == LARGEST_BODY
    assert nbytes_of(burial_of(largest, Note(detail="é" * 8000))) <= LARGEST
    assert message_nbytes(Message(body=b"x", extensions={"a": "v" * 100_000})) > 50_000


def test_requests_hold_what_pubsub_takes_at_most():
    assert chunks([1] * 2500, 10_000) == [range(1000), range(1000, 2000), range(2000, 2500)]
    assert chunks([6, 5, 5, 20, 1], 10) == [range(1), range(1, 3), range(3, 4), range(4, 5)]
    assert chunks([], 10) == []


def test_a_lock_is_asked_for_in_whole_seconds_and_a_little_longer():
    assert [visibility_of(seconds) for seconds in (0.1, 1.0, 30.0, 599.5, 5000.0)] == [1, 2, 31, 600, 600]


# --- findings ---


def subscription(name="dumbwaiter.resnet", **changes):
    settings = {
        "name": f"projects/p/subscriptions/{name}",
        "topic": f"projects/p/topics/{name}",
        "ack_deadline_seconds": 10,
        "enable_exactly_once_delivery": True,
    } | changes
    one = types.Subscription.pb()(**settings)
    if "message_retention_duration" not in changes:
        one.message_retention_duration.seconds = 7 * 86_400
    if "expiration_policy" not in changes:
        one.expiration_policy.SetInParent()
    if "dead_letter_policy" not in changes:
        one.dead_letter_policy.dead_letter_topic = "projects/p/topics/dumbwaiter.resnet~dead"
        one.dead_letter_policy.max_delivery_attempts = 100
    return one


def test_a_subscription_as_we_make_it_needs_no_word():
    assert findings_of(subscription(), prefix="dumbwaiter") == []
    dead = subscription("dumbwaiter.resnet~dead", ack_deadline_seconds=60, dead_letter_policy=None)
    assert findings_of(dead, prefix="dumbwaiter") == []


@pytest.mark.parametrize(
    ("changes", "level", "word", "remedy"),
    [
        ({"topic": "_deleted-topic_"}, "danger", "was deleted", "delete dumbwaiter.resnet"),
        ({"enable_exactly_once_delivery": False}, "danger", "exactly-once", "--enable-exactly-once-delivery"),
        ({"expiration_policy": None}, "danger", "31 days", "--expiration-period=never"),
        ({"expiration_policy": {"ttl": {"seconds": 86_400}}}, "danger", "1 days", "--expiration-period=never"),
        ({"message_retention_duration": {"seconds": 1800}}, "danger", "0.5 h", "--message-retention-duration=7d"),
        ({"message_retention_duration": {"seconds": 86_400}}, "warning", "24 h", "--message-retention-duration=7d"),
        ({"dead_letter_policy": None}, "danger", "does not count deliveries", "--max-delivery-attempts=100"),
        (
            {"dead_letter_policy": {"dead_letter_topic": "projects/p/topics/x", "max_delivery_attempts": 100}},
            "danger",
            "nobody of ours looks",
            "--dead-letter-topic=dumbwaiter.resnet~dead",
        ),
        (
            {
                "dead_letter_policy": {
                    "dead_letter_topic": "projects/p/topics/dumbwaiter.resnet~dead",
                    "max_delivery_attempts": 5,
                }
            },
            "note",
            "after 5 deliveries",
            "--max-delivery-attempts=100",
        ),
        ({"ack_deadline_seconds": 60}, "note", "ack deadline of 60 s", "--ack-deadline=10"),
        ({"push_config": {"push_endpoint": "https://x"}}, "danger", "workers get none", "--push-endpoint="),
        ({"filter": "attributes.a"}, "warning", "does not match", "delete dumbwaiter.resnet"),
        ({"detached": True}, "danger", "detached", "delete dumbwaiter.resnet"),
        ({"enable_message_ordering": True}, "note", "ordering key", ""),
    ],
)
def test_what_is_badly_configured_is_told_with_the_line_to_change(changes, level, word, remedy):
    (found,) = findings_of(subscription(**changes), prefix="dumbwaiter")
    assert found.level == level
    assert word in found.text
    assert remedy in found.remedy
