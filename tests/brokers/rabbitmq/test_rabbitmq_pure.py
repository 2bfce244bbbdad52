"""The pure pieces: addresses, names, shares and what stands beside a body."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.rabbitmq import names, wire
from dumbwaiter.brokers.rabbitmq.allotting import allotment
from dumbwaiter.brokers.rabbitmq.examining import of_heartbeat
from dumbwaiter.brokers.rabbitmq.link import require_version
from dumbwaiter.brokers.rabbitmq.location import location_of
from dumbwaiter.envelope import from_attributes
from dumbwaiter.errors import BrokerUnavailableError, ConfigError, MessageTooLargeError
from dumbwaiter.message import Message

NOW = 1_764_000_000.0


def test_an_address_says_all_that_there_is_to_say(certificate):
    file = str(certificate[0])
    options = f"prefix=mine&heartbeat=30&verify=false&ca_certs={file}"
    place = location_of(f"amqps://us%40er:p%2Fw@broker.example.com/a%2Fb?{options}")
    assert (place.username, place.password, place.virtual_host) == ("us@er", "p/w", "a/b")
    assert (place.host, place.port, place.is_encrypted) == ("broker.example.com", 5671, True)
    assert (place.prefix, place.heartbeat, place.verify, place.ca_certs) == ("mine", 30, False, file)


def test_an_address_need_say_little():
    place = location_of("amqp://broker")
    assert (place.username, place.virtual_host, place.port, place.prefix) == ("guest", "/", 5672, "dumbwaiter")
    assert location_of("amqp://broker/%2F").virtual_host == "/"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("amqp://h?prefx=a", "did you mean 'prefix'"),
        ("amqp://h?prefix=a&prefix=b", "twice"),
        ("amqp://h?prefix=a/b", "cannot begin"),
        ("amqp://h?heartbeat=0", "heartbeat"),
        ("amqp://h?verify=false", "amqps"),
        ("amqps://h?verify=no", "true or false"),
        ("amqp://h/a/b", "%2F"),
        ("amqp://h:port", "cannot read"),
        ("amqp:h", "not the address"),
    ],
)
def test_an_address_that_cannot_be_read_is_refused_without_its_password(url, said):
    with pytest.raises(ConfigError, match=said) as caught:
        open_broker(url.replace("//h", "//user:secret@h"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("odd", ["/x", "#x", "?x", "?x=1", "[", ":x/y", "@y/z"])
def test_a_password_that_is_not_percent_encoded_is_not_shown(odd):
    with pytest.raises(ConfigError) as caught:
        open_broker(f"amqp://user:s3cr3t{odd}@host/v")
    assert "s3cr3t" not in str(caught.value)


def test_a_heartbeat_that_keeps_a_frozen_workers_messages_for_longer_than_its_lock_is_noted():
    assert of_heartbeat(10, 30.0).level == "ok"
    finding = of_heartbeat(10, 4.0)
    assert (finding.level, "up to 30 s" in finding.text, "?heartbeat=5" in finding.remedy) == ("note", True, True)
    assert of_heartbeat(5, 4.0).remedy == ""  # any shorter, and workers that are well are cut off


@pytest.mark.parametrize("url", ["amqp://u:1/s3cr3t@h", "amqp://u:1?s3cr3t=1@h", "amqp://u:1#s3cr3t@h"])
def test_a_password_that_looks_like_a_port_and_more_is_not_shown(url):
    with pytest.raises(ConfigError) as caught:
        open_broker(url)
    assert "s3cr3t" not in str(caught.value)


@given(st.lists(st.integers(0, 9), min_size=3, max_size=3), st.permutations([0, 1, 2]), st.integers(0, 20))
def test_shares_are_what_is_ready_and_no_more_than_is_wanted(ready, order, wanted):
    shares = allotment(order, ready, wanted)
    assert sum(share for _, share in shares) == min(wanted, sum(ready))
    assert all(0 < share <= ready[lane] for lane, share in shares)


def test_no_two_physical_queues_share_a_name():
    all_names = [
        name
        for queue in ("a", "a.b", "a-high", "dead")
        for name in (
            *names.lane_names("p", queue),
            names.dead_name("p", queue),
            names.register_name("p", queue),
            *(names.delay_name("p", queue, lane, seconds) for lane in range(3) for seconds in (0.1, 1.0)),
        )
    ]
    assert len(set(all_names)) == len(all_names)
    assert all(len(name) < 255 - 80 for name in all_names)


def read(properties: Basic.Properties, body: bytes = b"") -> Message:
    return from_attributes(wire.attributes_of(properties, now=NOW), body, fallback_id=properties.message_id)


def test_properties_stand_for_what_no_header_says():
    sent = dt.datetime.fromtimestamp(NOW - 5, dt.UTC)
    message = read(
        Basic.Properties(
            content_type="image/png",
            message_id="m",
            correlation_id="c",
            reply_to="r",
            priority=3,
            timestamp=sent,
            expiration="60000",
            headers={"ce-type": "t", "cloudEvents:source": "/s", "subject": "net", "tenant": None, "x-death": [{}]},
        )
    )
    assert message == Message(
        id="m",
        content_type="image/png",
        correlation_id="c",
        reply_to="r",
        priority=3,
        time=NOW - 5,
        deadline=NOW + 55,
        type="t",
        source="/s",
        subject="net",
    )


def test_headers_win_over_properties():
    headers = {"cloudEvents:correlationid": "header", "replyto": "header", "id": "header"}
    message = read(Basic.Properties(correlation_id="p", reply_to="p", message_id="p", headers=headers))
    assert (message.correlation_id, message.reply_to, message.id) == ("header", "header", "header")


@pytest.mark.parametrize("expiration", ["soon", "nan", "inf", ""])
def test_an_expiration_that_is_no_number_is_none(expiration):
    assert read(Basic.Properties(expiration=expiration)).deadline is None


@pytest.mark.parametrize(("count", "before"), [("many", {}), (-1, None), (2.5, "1"), (10**12, True)])
def test_what_producers_write_into_the_count_does_no_harm(count, before):
    properties = Basic.Properties(headers={wire.BEFORE: count, "x-delivery-count": before})
    assert 1 <= wire.delivery_count_of(properties, redelivered=False) <= 2


def test_deliveries_of_a_copy_are_counted_on():
    properties = Basic.Properties(headers={wire.BEFORE: 3, "x-delivery-count": 2})
    assert wire.delivery_count_of(properties, redelivered=True) == 6
    assert wire.delivery_count_of(Basic.Properties(), redelivered=True) == 2
    copy = wire.again(properties, "m", before=6, now=NOW)
    assert wire.delivery_count_of(copy, redelivered=False) == 7
    assert copy.headers == {wire.BEFORE: 6}


def test_a_copy_keeps_the_deadline_that_an_expiration_meant():
    copy = wire.again(Basic.Properties(expiration="1000"), "m", before=0, now=NOW)
    assert copy.expiration is None
    assert read(copy).deadline == NOW + 1


def test_ids_and_addresses_too_long_for_a_property_travel_as_headers():
    message = Message(id="i" * 1000, correlation_id="c" * 300, content_type="text/" + "x" * 300, reply_to="r" * 256)
    assert read(wire.properties_of(message)) == message


def test_attributes_too_long_to_travel_are_refused():
    with pytest.raises(MessageTooLargeError):
        wire.properties_of(Message(extensions={"long": "é" * wire.HEADERS_LIMIT}))


def test_of_a_long_detail_the_end_is_kept():
    properties = wire.dead(
        Basic.Properties(), key="k", reason="r", detail="é" * 100_000 + "end", dead_at=NOW, frame_max=2**17
    )
    kept = properties.headers[wire.DETAIL]
    assert kept.endswith("end")
    assert len(kept.encode()) < wire.DETAIL_LIMIT + 10


def test_keys_sort_by_the_time_of_death():
    keys = [wire.new_key(at, "ab12") for at in (0.0, 1.0, NOW, NOW + 1e-6, 3e9)]
    assert keys == sorted(keys)
    assert all(wire.is_key(key) for key in keys)
    assert not any(wire.is_key(text) for text in ("", "no key", "1-a", "x" * 17 + "-a", "1" * 17 + "-"))


@pytest.mark.parametrize("properties", [{"product": "RabbitMQ", "version": "3.9.29"}, {"product": "Other"}, {}])
def test_a_server_that_is_too_old_or_another_product_is_refused(properties):
    with pytest.raises(BrokerUnavailableError, match=r"3\.10 or later"):
        require_version(properties, "amqp://broker")


@pytest.mark.parametrize("version", ["3.10.8", "3.13.0-rc.1", "4.0.5", "4.3"])
def test_a_server_that_is_new_enough_is_taken(version):
    require_version({"product": "RabbitMQ", "version": version}, "amqp://broker")
