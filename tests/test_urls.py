"""URLs as they are printed: what is secret in them stays out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.urls import shown, without_user


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("amqp://user:s3cret@host/path", "amqp://host/path"),
        ("amqps://user@host:5671/%2f?heartbeat=30&password=s3cret", "amqps://host:5671/%2f?…"),
        ("redis://:s3cret@host:6379/0", "redis://host:6379/0"),
        ("amqp://user:s3c/r?e#t@host/path", "amqp://host/path"),
        ("amqp://user:12/s3cret@host", "amqp://host"),
        ("amqp://user:s3@cret@host/", "amqp://host/"),
        ("amqp:user:s3cret@host", "amqp:host"),
        ("AMQP://u:s3cret@host", "AMQP://host"),
        ("sqlite://user:s3cret@host/queue.db", "sqlite://host/queue.db"),
        ("s3://key:s3cret@bucket/folder", "s3://bucket/folder"),
        ("az://container/folder?sig=s3cret", "az://container/folder?…"),
        ("amqp://[::1]:5672/x", "amqp://[::1]:5672/x"),
        ("amqp://user:s3cret@[::1]:5672/x", "amqp://[::1]:5672/x"),
    ],
)
def test_user_name_password_and_query_are_not_shown(url, printed):
    assert shown(url) == printed


@pytest.mark.parametrize(
    "url",
    [
        "memory:",
        "memory://name",
        "sqlite:.dumbwaiter/queue.db",
        "sqlite:///home/me@work/what?/queue.db",
        "sqlite:a:b@c.db",
        "file:///home/me@work/blobs",
        "s3://bucket/mail@example.com/x",
        "amqp://host:5672/path",
        "attic",
        "",
        "carrier-pigeon:",
    ],
)
def test_what_holds_no_secret_is_shown_as_it_is(url):
    assert shown(url) == url


PLAIN = st.text(st.characters(categories=["L", "N"]), min_size=1)


@given(PLAIN, st.text(min_size=1), st.sampled_from(["amqp", "redis", "nats", "s3"]))
def test_no_password_is_shown_whatever_it_holds(user, password, scheme):
    assert shown(f"{scheme}://{user}:{password}@host/x") == f"{scheme}://host/x"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("amqp://user:s3cret@host/path?prefix=a", "amqp://host/path?prefix=a"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("nats://user@host:4222?prefix=b", "nats://host:4222?prefix=b"),
        ("sqlite:///home/me@work/what?/queue.db", "sqlite:///home/me@work/what?/queue.db"),
        ("no url", "no url"),
    ],
)
def test_who_asks_can_be_left_out_and_all_else_kept(url, place):
    assert without_user(url) == place
