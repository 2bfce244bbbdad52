"""What a URL says of NATS."""

from __future__ import annotations

import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.nats.address import Address, read_url
from dumbwaiter.errors import ConfigError


def test_a_host_alone_is_enough():
    assert read_url("nats://queue.example") == Address(servers=("queue.example:4222",))


def test_several_servers_of_a_cluster_can_be_named():
    assert read_url("tls://a:1,b,[::1]:3").servers == ("a:1", "b:4222", "[::1]:3")
    assert read_url("tls://a").tls


def test_user_and_password_are_decoded():
    address = read_url("nats://us%40er:p%2Fw%3F@host:4222")
    assert (address.user, address.password) == ("us@er", "p/w?")


def test_a_user_without_a_password_is_a_token():
    address = read_url("nats://s3cret@host")
    assert (address.token, address.user) == ("s3cret", None)


def test_options_are_read_by_name():
    address = read_url("nats://h?prefix=mine&replicas=3&domain=hub&monitor=http://h:8222")
    assert (address.prefix, address.replicas, address.domain) == ("mine", 3, "hub")
    assert address.monitor == "http://h:8222"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://h?replica=3", "did you mean 'replicas'"),
        ("nats://h?replicas=2", "replicas must be 1, 3 or 5"),
        ("nats://h?prefix=a.b", "prefix must be"),
        ("nats://h?prefix=", "has no value"),
        ("nats://", "no host"),
        ("nats://h:port", "host:4222"),
        ("nats://h/path/more", "not the address"),
        ("http://h", "not the address"),
    ],
)
def test_what_cannot_be_read_is_named(url, said):
    with pytest.raises(ConfigError, match=said):
        read_url(url)


def test_an_error_shows_no_secret():
    with pytest.raises(ConfigError) as caught:
        open_broker("nats://user:hunter2@h?tokn=hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_password_that_is_not_percent_encoded_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        open_broker("nats://user:pass?hunter2=x@h")
    assert "hunter2" not in str(caught.value)
