"""Names, URLs, records and findings: pure functions."""

from __future__ import annotations

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, KafkaError
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.brokers.kafka.examining import Topic, findings_of, stamp_findings
from dumbwaiter.brokers.kafka.link import Link
from dumbwaiter.brokers.kafka.location import USUAL_LIMIT, location_of
from dumbwaiter.brokers.kafka.names import (
    LEDGER,
    LONGEST,
    PARTS,
    inbox_topic,
    new_inbox,
    partition_of,
    queue_of,
    topic_of,
)
from dumbwaiter.brokers.kafka.wire import (
    COUNT,
    DUE,
    Record,
    burial_of,
    found,
    headers_of,
    is_key,
    key_of,
    message_nbytes,
    smaller_burials,
)
from dumbwaiter.errors import ConfigError, MessageTooLargeError
from dumbwaiter.message import Message
from dumbwaiter.policies.lanes import NORMAL

QUEUES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", fullmatch=True)


@given(QUEUES, QUEUES)
def test_no_two_topics_of_queues_are_one_even_where_dots_are_underscores(one, two):
    topics = [topic_of("dumbwaiter", queue, part) for queue in {one, two} for part in PARTS]
    assert len({topic.replace(".", "_") for topic in topics}) == len(topics)
    assert all(len(topic) <= LONGEST for topic in topics)


@given(QUEUES)
def test_a_queue_is_known_by_the_topic_of_its_ledger(queue):
    assert queue_of("dumbwaiter", topic_of("dumbwaiter", queue, LEDGER)) in (queue, None)


def test_other_topics_are_no_queues():
    for topic in (
        "dumbwaiter.a",
        "dumbwaiter.a.dead",
        "other.a.ledger",
        "dumbwaiter..ledger",
        inbox_topic("dumbwaiter"),
    ):
        assert queue_of("dumbwaiter", topic) is None
    assert topic_of("dumbwaiter", "resnet.v1_a", NORMAL) == "dumbwaiter.resnet_2ev1_5fa"


def test_only_an_address_of_ours_is_an_inbox():
    assert partition_of("dumbwaiter", new_inbox("dumbwaiter", 5)) == 5
    for address in ("", "inbox", f"{inbox_topic('dumbwaiter')}.x.{'0' * 32}", new_inbox("other", 1), "http://x"):
        assert partition_of("dumbwaiter", address) is None


def test_a_url_says_where_and_how():
    where = location_of("kafka://user:p%40ss@one,two:9094?security=ssl&sasl=SCRAM-SHA-512&partitions=3&fetch_wait=0.05")
    assert where.servers == "one:9092,two:9094"
    settings = where.client_settings()
    assert settings["security.protocol"] == "sasl_ssl"
    assert (settings["sasl.username"], settings["sasl.password"]) == ("user", "p@ss")
    assert settings["sasl.mechanism"] == "SCRAM-SHA-512"
    assert (where.partitions, where.fetch_wait, where.replicas) == (3, 0.05, None)
    assert location_of("kafka://[::1]:9093").servers == "[::1]:9093"
    assert location_of("kafka://one").client_settings() == {
        "bootstrap.servers": "one:9092",
        "security.protocol": "plaintext",
    }


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("kafka://", "names no host"),
        ("kafka:///path", "address of Kafka"),
        ("kafka://host:port", "names no host and port"),
        ("kafka://user@host", "without a password"),
        ("kafka://host?partition=3", "did you mean"),
        ("kafka://host?partitions=0", "partitions"),
        ("kafka://host?replicas=three", "replicas"),
        ("kafka://host?fetch_wait=never", "fetch_wait"),
        ("kafka://host?security=tls", "security"),
        ("kafka://user:secret@host?sasl=GSSAPI", "sasl"),
        ("kafka://host?prefix=a.b", "prefix"),
        ("kafka://host?tls_ca=", "no value"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_naming_the_part_and_no_secret(url, named):
    with pytest.raises(ConfigError, match=named) as caught:
        location_of(url)
    assert "secret" not in str(caught.value)


def test_a_message_goes_as_a_cloudevent_of_the_kafka_binding():
    message = Message(id="1", content_type="image/jpeg", tenant="café")
    headers = dict(headers_of(message, due=1.5))
    assert headers["ce_id"] == b"1"
    assert headers["content-type"] == b"image/jpeg"
    assert headers["ce_tenant"] == "café".encode()
    read = found(0, 0, headers.items(), b"")
    assert read.message("other") == message
    assert read.due == 1.5
    assert DUE not in read.attributes


def test_a_header_that_is_no_text_is_a_fault():
    read = found(0, 0, [("ce_tenant", b"\xff")], b"body")
    assert read.fault is not None
    assert read.message("id").body == b"body"


def test_numbers_that_somebody_else_wrote_are_no_harm():
    for text in (b"nan", b"-1", b"x", b"1e300", None):
        assert found(0, 0, [(DUE, text)], b"").due == 0.0


def test_the_end_of_a_long_detail_is_kept():
    headers = dict(burial_of(Message(), reason="r" * 999, detail="x" * 99_999 + "end", count=2, now=1.0))
    assert headers["dumbwaiter_detail"].endswith(b"end")
    assert headers[COUNT] == b"2"
    assert sum(map(len, headers.values())) < 16_384


def test_a_dead_letter_that_does_not_fit_loses_what_is_not_its_message_first():
    message = Message(id="1", body=b"body", tenant="acme")
    headers = burial_of(message, reason="oom", detail="long", count=3, now=5.0)
    one, two = smaller_burials(Record("t", message.body, headers, partition=0))
    assert {name for name, _ in headers} - {name for name, _ in one.headers} == {"dumbwaiter_detail"}
    assert two.headers == headers_of(message)
    assert one.value == two.value == b"body"


def test_of_a_message_that_cannot_be_read_the_body_is_kept_whatever_else_does_not_fit():
    headers = burial_of(Message(body=b"body"), reason="bad-envelope", detail="long", count=1, now=5.0)
    *_, note, bare = smaller_burials(Record("t", b"body", headers, partition=0))
    assert {name for name, _ in note.headers} == {"dumbwaiter_reason", "dumbwaiter_count", "dumbwaiter_dead_at"}
    assert (bare.headers, bare.value) == ([], b"body")


def test_a_message_that_is_too_large_is_named_with_its_size_and_a_limit_below_that():
    link = Link(location_of("kafka://here"), on_down=lambda _: None)
    for nbytes, limit in ((2_000_000, USUAL_LIMIT), (1000, 999)):
        error = link.error_of("write", KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), nbytes=nbytes)
        assert isinstance(error, MessageTooLargeError)
        assert (error.nbytes, error.limit) == (nbytes, limit)


def test_a_ledger_whose_records_have_the_time_of_their_writers_is_warned_of():
    assert stamp_findings("t", TIMESTAMP_LOG_APPEND_TIME) == stamp_findings("t", None) == []
    assert levels(stamp_findings("t", TIMESTAMP_CREATE_TIME)) == ["warning"]


def test_large_attributes_count():
    assert message_nbytes(Message(body=b"x")) == 1
    assert message_nbytes(Message(tenant="t" * 100_000)) > 90_000


def test_keys_of_dead_letters_sort_by_age():
    assert key_of(9) < key_of(10)
    assert is_key(key_of(0))
    assert not is_key("9")


def topic(part=NORMAL, replicas=3, **settings):
    usual = {"min.insync.replicas": "2", "message.timestamp.type": "LogAppendTime", "retention.ms": "-1"}
    return Topic(
        name="t", part=part, replicas=replicas, settings=usual | {k.replace("_", "."): v for k, v in settings.items()}
    )


def levels(findings):
    return [finding.level for finding in findings]


def test_a_topic_as_it_should_be_needs_no_word():
    assert findings_of(topic()) == findings_of(topic(LEDGER)) == []


def test_settings_that_lose_messages_are_found_with_the_line_to_change():
    for settings, level in (
        ({"retention_ms": "604800000"}, "danger"),
        ({"retention_bytes": "1000"}, "danger"),
        ({"cleanup_policy": "compact"}, "danger"),
        ({"unclean_leader_election_enable": "true"}, "danger"),
        ({"min_insync_replicas": "1"}, "warning"),
    ):
        findings = findings_of(topic(**settings))
        assert levels(findings) == [level]
        assert "kafka-configs.sh" in findings[0].remedy
    assert levels(findings_of(topic(LEDGER, message_timestamp_type="CreateTime"))) == ["warning"]
