"""Brokers by URL: which there are, and that no error shows a password."""

from __future__ import annotations

import math
import sys

import pytest

from dumbwaiter.brokers import ADAPTERS, CLIENTS, DISTRIBUTIONS, open_broker, shown
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.brokers.sqlite import SqliteBroker
from dumbwaiter.errors import ConfigError, MissingExtraError


def test_the_scheme_says_which_broker_it_is():
    assert isinstance(open_broker("memory:"), MemoryBroker)
    assert isinstance(open_broker("sqlite:queue.db"), SqliteBroker)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey"])
def test_the_adapter_of_each_server_reads_its_address_without_connecting(scheme):
    broker = open_broker(f"{scheme}://127.0.0.1", lock_duration=7.0)
    assert type(broker).__module__.startswith(ADAPTERS[scheme].partition(":")[0])
    assert broker.lock_duration == 7.0


@pytest.mark.parametrize(("package", "extra"), [("redis", "redis"), ("hiredis", "redis")])
def test_a_client_library_that_is_missing_is_named_with_its_extra(package, extra, monkeypatch):
    url = next(f"{scheme}://127.0.0.1" for scheme, place in ADAPTERS.items() if f".{extra}" in place)
    for name in list(sys.modules):
        if name.partition(".")[0] == package or name.startswith(f"dumbwaiter.brokers.{extra}"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as caught:
        open_broker(url)
    assert (caught.value.package, caught.value.extra) == (package, extra)


def test_a_client_library_that_is_missing_is_called_what_pip_calls_it(monkeypatch):
    for name in list(sys.modules):
        if name.partition(".")[0] == "nats" or name.startswith("dumbwaiter.brokers.nats"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nats", None)
    with pytest.raises(MissingExtraError, match="nats-py is not installed") as caught:
        open_broker("nats://127.0.0.1")
    assert (caught.value.package, caught.value.distribution) == ("nats", "nats-py")


def test_what_pip_calls_otherwise_is_a_known_client():
    assert CLIENTS.keys() >= DISTRIBUTIONS.keys()


@pytest.mark.parametrize(
    "url", ["gopher://user:s3cret@host/", "sqlite://user:s3cret@host/q.db", "memory://user:s3cret@host?x=s3cret"]
)
def test_a_url_that_cannot_be_opened_is_named_without_its_password(url):
    with pytest.raises(ConfigError) as caught:
        open_broker(url)
    assert "s3cret" not in str(caught.value)
    assert shown(url) in str(caught.value)


@pytest.mark.parametrize("url", ["queue.db", "", "://x"])
def test_a_text_without_a_scheme_is_refused_with_those_that_there_are(url):
    with pytest.raises(ConfigError, match=f"no broker for {url!r}: its scheme must be one of .*memory:, .*sqlite:"):
        open_broker(url)


@pytest.mark.parametrize("seconds", [0, -5.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("url", ["memory:", "redis://127.0.0.1:1"])
def test_a_lock_that_is_no_positive_number_of_seconds_is_refused(url, seconds):
    with pytest.raises(ConfigError, match="lock_duration must be a positive, finite number of seconds"):
        open_broker(url, lock_duration=seconds)


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("REDIS://host", "redis"),
        ("reddis://host", "redis"),
        ("rabbitmq://u:s3cret@host", "amqp"),
        ("Kafkaa://h", "kafka"),
    ],
)
def test_a_scheme_that_is_nearly_right_is_told_with_the_right_one(url, meant):
    with pytest.raises(ConfigError, match=f"no broker for .*; did you mean '{meant}'\\?; its scheme must be") as caught:
        open_broker(url)
    assert "s3cret" not in str(caught.value)
