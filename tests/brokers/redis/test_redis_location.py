"""What the URL says."""

from __future__ import annotations

import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.redis.location import location_of
from dumbwaiter.errors import ConfigError


def test_a_url_with_everything(certificate):
    file = str(certificate[0])
    found = location_of(f"rediss://us%40er:p%2Fw@redis.example:7000/3?prefix=team&ca_certs={file}&verify=false")
    assert (found.host, found.port, found.database) == ("redis.example", 7000, 3)
    assert (found.username, found.password) == ("us@er", "p/w")
    assert (found.is_encrypted, found.prefix, found.ca_certs, found.verify) == (True, "team", file, False)


@pytest.mark.parametrize("url", ["redis://", "valkey://127.0.0.1", "redis://127.0.0.1:6379/", "redis://127.0.0.1/0"])
def test_what_is_left_out_is_the_usual(url):
    found = location_of(url)
    assert (found.host, found.port, found.database, found.prefix) == ("127.0.0.1", 6379, 0, "dumbwaiter")
    assert (found.username, found.password, found.is_encrypted) == (None, None, False)


def test_a_password_alone_is_the_default_users():
    assert location_of("redis://:secret@h").username is None
    assert location_of("redis://:secret@h").password == "secret"


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://h?prefx=a", "did you mean 'prefix'"),
        ("redis://h?prefix=a&prefix=b", "twice"),
        ("redis://h?prefix=a{b}", "cannot begin keys"),
        ("redis://h?prefix=", "cannot begin keys"),
        ("redis://h/one", "no number of a database"),
        ("redis://h:port", "cannot read the address"),
        ("redis://h?verify=false", "needs TLS"),
        ("rediss://h?verify=no", "must be true or false"),
        ("redis:h", "not the address"),
        ("redis://h#part", "not the address"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_with_the_reason(url, named):
    with pytest.raises(ConfigError, match=named.replace("{", r"\{")):
        open_broker(url)


def test_an_error_never_shows_the_password():
    with pytest.raises(ConfigError) as caught:
        open_broker("redis://user:hush@h/one")
    assert "hush" not in str(caught.value)
    assert "hush" not in location_of("redis://user:hush@h").shown
