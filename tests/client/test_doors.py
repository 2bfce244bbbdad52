"""Which way a URL means, and what is refused with it."""

from __future__ import annotations

import re

import pytest

from dumbwaiter import AsyncClient, Client
from dumbwaiter.brokers import ADAPTERS
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.errors import ConfigError, QueueNotFoundError

BROKERS = ", ".join(f"{scheme}:…" for scheme in sorted(ADAPTERS))


@pytest.mark.parametrize("url", ["127.0.0.1:8096", "localhost:8080", "models.example.com:443/base"])
def test_a_gateway_without_its_scheme_is_told_how_it_is_written(url):
    with pytest.raises(ConfigError) as caught:
        Client(url)
    assert str(caught.value) == (
        f"{url!r} names neither a gateway (http://…, https://…) nor a broker ({BROKERS});"
        f" if you mean a gateway, say http://{url}"
    )


@pytest.mark.parametrize("url", ["rabbit://user:s3cret@host/x", "queue.db", ""])
def test_what_names_no_way_is_told_which_there_are_without_its_password(url):
    with pytest.raises(ConfigError, match=rf"neither a gateway .* nor a broker \({re.escape(BROKERS)}\)$") as caught:
        AsyncClient(url)
    assert "s3cret" not in str(caught.value)


def test_a_gateway_has_its_own_store():
    with pytest.raises(ConfigError, match=r"blobs is for a broker, and http://127.0.0.1:8080 is a gateway, which has"):
        Client("http://user:s3cret@127.0.0.1:8080", blobs="memory:")


@pytest.mark.parametrize("facts", [{"api_key": "k"}, {"headers": {"a": "b"}}, {"idempotent": True}])
def test_a_broker_takes_nothing_that_only_gateways_heed(facts):
    (name,) = facts
    with pytest.raises(ConfigError, match=f"{name} is for a gateway, and sqlite:queue.db is a broker; leave it out"):
        Client("sqlite:queue.db", **facts)
    with pytest.raises(ConfigError, match=f"{name} is for a gateway, and a MemoryBroker is a broker"):
        Client(MemoryBroker(), **facts)


def test_a_queue_that_is_not_there_is_told_with_the_file_that_was_looked_into(tmp_path):
    url = f"sqlite:{tmp_path}/nowhere/queue.db"
    with Client(url) as client, pytest.raises(QueueNotFoundError) as caught:
        client.predict("shout", "x")
    assert caught.value.where == url
    assert str(caught.value).startswith(f"no queue named 'shout' on {url}; start a worker for it there, or name the br")
