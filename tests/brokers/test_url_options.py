"""Options of a URL are read by name, and a fault names the option and the URL without its password."""

from __future__ import annotations

import pytest

from dumbwaiter.brokers.url_options import read_flag, read_options
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


def test_a_flag_is_true_or_false():
    assert (read_flag("verify", "true", URL), read_flag("verify", "false", URL)) == (True, False)
    with pytest.raises(ConfigError, match=r"^verify='yes' in 'redis://host' must be true or false$"):
        read_flag("verify", "yes", URL)
