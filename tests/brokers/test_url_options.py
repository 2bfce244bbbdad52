"""Options of a URL are read by name, and a fault names the option and the URL without its password."""

from __future__ import annotations

import pytest

from dumbwaiter.brokers.url_options import read_flag, read_options, split_address
from dumbwaiter.errors import ConfigError

URL = "redis://user:s3cret@host"
KNOWN = ("prefix", "verify")


def test_known_options_are_read_and_unescaped():
    assert read_options("prefix=a%20b&verify=", KNOWN, URL) == {"prefix": "a b", "verify": ""}
    assert read_options("", KNOWN, URL) == {}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("prefx=a", "unknown option 'prefx' in 'redis://host'; did you mean 'prefix'"),
        ("prefix=a&prefix=b", "option 'prefix' stands twice in 'redis://host'"),
    ],
)
def test_what_is_unknown_or_said_twice_is_refused(query, reason):
    with pytest.raises(ConfigError) as caught:
        read_options(query, KNOWN, URL)
    assert reason in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("odd", ["/", "#", "?", "[", "/x", "#x", "?x"])
def test_an_address_that_cannot_be_split_does_not_show_the_password(odd):
    url = f"redis://:s3cret{odd}word@host:6379"
    with pytest.raises(ConfigError, match="cannot read the address") as caught:
        split_address(url, "redis://user:password@host")
    assert "s3cret" not in str(caught.value)
    assert "percent-encoded" in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_address_in_its_parts():
    parts = split_address("redis://u:p%2F@host:1/0?a=b", "form")
    assert (parts.hostname, parts.port, parts.path, parts.query) == ("host", 1, "/0", "a=b")


def test_a_flag_is_true_or_false():
    assert (read_flag("verify", "true", URL), read_flag("verify", "false", URL)) == (True, False)
    with pytest.raises(ConfigError, match=r"^verify='yes' in 'redis://host' must be true or false$"):
        read_flag("verify", "yes", URL)
