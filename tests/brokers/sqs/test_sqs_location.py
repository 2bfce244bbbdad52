from __future__ import annotations

import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.sqs.location import location_of
from dumbwaiter.errors import ConfigError


def test_a_region_is_enough():
    location = location_of("sqs://eu-central-1")
    assert (location.region, location.endpoint, location.prefix) == ("eu-central-1", None, "dumbwaiter")
    assert location.max_message_size == 262_144


def test_a_url_without_a_region_leaves_it_to_the_environment():
    assert location_of("sqs://").region is None
    assert location_of("sqs://?prefix=a").region is None


def test_options_say_the_rest():
    url = "sqs://us-east-1?endpoint=http://127.0.0.1:4566&prefix=staging-2&max_message_size=1048576"
    location = location_of(url)
    assert location.endpoint == "http://127.0.0.1:4566"
    assert (location.prefix, location.max_message_size) == ("staging-2", 1_048_576)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("sqs:eu-central-1", "not the address"),
        ("sqs://eu_central", "region"),
        ("sqs://eu-central-1/path", "region"),
        ("sqs://eu-central-1?prefx=a", "did you mean 'prefix'"),
        ("sqs://eu-central-1?prefix=a&prefix=b", "twice"),
        ("sqs://eu-central-1?prefix=with_underscore", "prefix"),
        ("sqs://eu-central-1?prefix=", "prefix"),
        ("sqs://eu-central-1?endpoint=127.0.0.1:4566", "endpoint"),
        ("sqs://eu-central-1?endpoint=http://host:port", "endpoint"),
        ("sqs://eu-central-1?max_message_size=1MiB", "max_message_size"),
        ("sqs://eu-central-1?max_message_size=1", "max_message_size"),
    ],
)
def test_what_is_wrong_in_a_url_is_named(url, word):
    with pytest.raises(ConfigError, match=word):
        location_of(url)


@pytest.mark.parametrize("url", ["sqs://AKIA:secret@eu-central-1", "sqs://x?endpoint=http://key:secret@host"])
def test_credentials_in_a_url_are_refused_and_not_shown(url):
    with pytest.raises(ConfigError) as caught:
        location_of(url)
    assert "secret" not in str(caught.value)


def test_a_lock_longer_than_sqs_keeps_is_refused():
    with pytest.raises(ConfigError, match="12 hours"):
        open_broker("sqs://eu-central-1", lock_duration=43_200)


def test_the_largest_body_follows_the_largest_message():
    small = open_broker("sqs://eu-central-1").capabilities.max_message_nbytes
    large = open_broker("sqs://eu-central-1?max_message_size=1048576").capabilities.max_message_nbytes
    assert 180_000 < small < 262_144 * 3 / 4 < 770_000 < large < 1_048_576 * 3 / 4
