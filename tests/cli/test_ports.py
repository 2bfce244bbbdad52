"""A port is looked at before anything is started for it."""

from __future__ import annotations

import errno
import socket

import pytest

from dumbwaiter.cli.ports import _why, url_of, usable_port
from dumbwaiter.errors import ConfigError


def test_zero_becomes_a_free_port_and_a_free_port_stays():
    port = usable_port("127.0.0.1", 0)
    assert port > 0
    assert usable_port("127.0.0.1", port) == port


def test_a_port_in_use_is_refused_with_the_way_out():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"^port {port} on 127\.0\.0\.1 is in use; choose another with --port N"):
            usable_port("127.0.0.1", port)


def test_a_port_that_was_just_given_up_can_be_used_again_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        caller = socket.create_connection(("127.0.0.1", port))
        server.accept()[0].close()  # the side that closes first keeps the connection in TIME_WAIT
        caller.close()
    assert usable_port("127.0.0.1", port) == port


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(ConfigError, match=r"^cannot listen on 192\.0\.2\.1 port 8080: "):
        usable_port("192.0.2.1", 8080)


def test_a_host_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"^gateway\.host 'no\.such\.host\.invalid' is no address of this machine: "):
        usable_port("no.such.host.invalid", 8080)


def test_a_privileged_port_is_refused_with_the_way_out():
    refused = PermissionError(errno.EACCES, "Permission denied")  # which root never sees
    assert _why(refused, "127.0.0.1", 80).startswith("port 80 on 127.0.0.1 needs privileges; choose one above 1023")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("::1", "http://[::1]:8080"),
        ("gpu-1", "http://gpu-1:8080"),
    ],
)
def test_the_url_is_one_that_callers_on_this_machine_can_use(host, url):
    assert url_of(host, 8080) == url
