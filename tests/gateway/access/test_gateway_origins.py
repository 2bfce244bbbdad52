"""Which hosts and which web pages a gateway without keys listens to."""

from __future__ import annotations

import socket

import pytest

from dumbwaiter.gateway.access.origins import KnownHosts

KNOWN = KnownHosts("127.0.0.1", "https://api.example.com", ["https://app.example.com"])


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8080",
        "127.0.0.1",
        "[::1]:8080",
        "localhost:8080",
        "LOCALHOST",
        "localhost.",
        "app.localhost:1",
        "192.168.1.7:8080",
        "10.0.0.1",
        "[fe80::1%25eth0]:80",
        socket.gethostname(),
        "gateway.default.svc.cluster.local",
        "vm-1.c.project.internal",
        "api.example.com",
        "API.example.com:443",
    ],
)
def test_addresses_and_names_that_no_stranger_can_own_are_ours(host):
    assert KNOWN.is_ours(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil",
        "evil:8080",
        "evil.com",
        "evil.com:8080",
        "127.0.0.1.evil.com",
        "localhost.evil.com",
        "api.example.com.evil.com",
        "evilapi.example.com",
        "api.example.com@evil.com",
        "internal.evil.com",
        "evil.com.",
        "127.0.0.1.nip.io:8080",
        "[::1",
        "",
        ".",
        "é.com",
        "evil.com/127.0.0.1",
    ],
)
def test_a_name_that_a_stranger_can_own_is_not(host):
    assert not KNOWN.is_ours(host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://localhost:8080", "localhost:8080"),
        ("http://localhost", "localhost:80"),
        ("https://localhost", "localhost"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("HTTP://LocalHost:8080", "localhost:8080"),
        ("https://app.example.com", "127.0.0.1:8080"),
        ("https://api.example.com", "127.0.0.1:8080"),
    ],
)
def test_a_page_from_here_or_one_that_is_allowed_may_call(origin, host):
    assert KNOWN.may_call(origin, host)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.com",
        "http://127.0.0.1:8081",
        "http://127.0.0.1",
        "http://localhost:8080",
        "http://app.example.com",
        "https://app.example.com.evil.com",
        "https://app.example.com:8443",
        "http://127.0.0.1:8080@evil.com",
        "http://127.0.0.1:99999",
        "http://[::1",
        "file://",
        "chrome-extension://abcdef",
        "//",
    ],
)
def test_any_other_page_may_not(origin):
    assert not KNOWN.may_call(origin, "127.0.0.1:8080")


def test_a_star_lets_all_pages_call():
    assert KnownHosts("127.0.0.1", None, ["*"]).may_call("https://evil.com", "127.0.0.1")
