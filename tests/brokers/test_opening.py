"""Brokers by URL: which there are, and that no error shows a password."""

from __future__ import annotations

import pytest

from dumbwaiter.brokers import ADAPTERS, open_broker, shown
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.errors import ConfigError


def test_the_scheme_says_which_broker_it_is():
    assert isinstance(open_broker("memory:"), MemoryBroker)
    assert {name: type(open_broker(f"{name}:queue.db" if name == "sqlite" else f"{name}:")) for name in ADAPTERS}


@pytest.mark.parametrize(
    "url", ["amqp://user:s3cret@host/", "sqlite://user:s3cret@host/q.db", "memory://user:s3cret@host?x=s3cret"]
)
def test_a_url_that_cannot_be_opened_is_named_without_its_password(url):
    with pytest.raises(ConfigError) as caught:
        open_broker(url)
    assert "s3cret" not in str(caught.value)
    assert shown(url) in str(caught.value)


@pytest.mark.parametrize("url", ["queue.db", "", "://x"])
def test_a_text_without_a_scheme_is_refused_with_those_that_there_are(url):
    with pytest.raises(ConfigError, match=f"no broker for {url!r}: its scheme must be one of memory:, sqlite:"):
        open_broker(url)
