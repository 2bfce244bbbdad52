"""What a URL and the environment say of a namespace."""

from __future__ import annotations

import asyncio

import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.servicebus.location import PREMIUM_SIZE, STANDARD_SIZE, VARIABLE, location_of
from dumbwaiter.errors import BrokerUnavailableError, ConfigError

HOST = "kitchen.servicebus.windows.net"
STRING = f"Endpoint=sb://{HOST}/;SharedAccessKeyName=root;SharedAccessKey=a+b/c=;"


def test_a_namespace_is_asked_over_tls_by_an_identity_of_azure():
    place = location_of(f"servicebus://{HOST}", {})
    assert (place.host, place.key, place.is_encrypted, place.management_host) == (HOST, None, True, None)
    assert (place.prefix, place.max_message_size) == ("dumbwaiter", STANDARD_SIZE)


def test_a_key_in_the_address_is_percent_encoded_and_never_shown():
    place = location_of(f"servicebus://root:a%2Bb%2Fc%3D@{HOST}?prefix=p-1&max_message_size={PREMIUM_SIZE}", {})
    assert place.key == ("root", "a+b/c=")
    assert place.shown == f"servicebus://{HOST}?…"
    assert (place.prefix, place.max_message_size) == ("p-1", PREMIUM_SIZE)


@pytest.mark.parametrize("url", [f"servicebus://{HOST}", "servicebus://"])
def test_the_key_may_stand_in_the_environment(url):
    place = location_of(url, {VARIABLE: STRING})
    assert (place.host, place.key) == (HOST, ("root", "a+b/c="))


def test_a_key_in_the_address_wins_over_the_environment():
    assert location_of(f"servicebus://mine:k@{HOST}", {VARIABLE: STRING}).key == ("mine", "k")


def test_an_emulator_is_asked_in_plain_text_at_ports_of_its_own():
    place = location_of("servicebus://k:s@127.0.0.1:1234?emulator=true&management_port=81", {})
    assert (place.host, place.management_host, place.is_encrypted) == ("127.0.0.1:1234", "127.0.0.1:81", False)
    place = location_of("servicebus://k:s@localhost?emulator=true", {})
    assert (place.host, place.management_host) == ("localhost:5672", "localhost:5300")


@pytest.mark.parametrize(
    ("url", "environment", "fault"),
    [
        ("servicebus:kitchen", {}, "not the address"),
        (f"servicebus://{HOST}/queue", {}, "not the address"),
        (f"servicebus://{HOST}:nonsense", {}, "cannot read"),
        ("servicebus://", {}, "names no namespace"),
        (f"servicebus://root@{HOST}", {}, "half of a key"),
        ("servicebus://root:k@", {}, "half of a key"),
        (f"servicebus://{HOST}:5671", {}, "emulator only"),
        (f"servicebus://{HOST}?management_port=1", {}, "emulator only"),
        ("servicebus://k:s@h?emulator=yes", {}, "true or false"),
        ("servicebus://k:s@h?emulator=true&management_port=0", {}, "must be a port"),
        (f"servicebus://{HOST}?prefix=Upper", {}, "cannot begin names"),
        (f"servicebus://{HOST}?prefix=end-", {}, "cannot begin names"),
        (f"servicebus://{HOST}?max_message_size=1", {}, "number of bytes"),
        (f"servicebus://{HOST}?prefx=a", {}, "prefix"),
        ("servicebus://other.servicebus.windows.net", {VARIABLE: STRING}, "for another"),
        (f"servicebus://{HOST}", {VARIABLE: "nonsense"}, "no connection string"),
    ],
)
def test_what_cannot_be_meant_is_named(url, environment, fault):
    with pytest.raises(ConfigError, match=fault) as error:
        location_of(url, environment)
    assert "a+b/c=" not in str(error.value)


@pytest.mark.anyio
async def test_a_namespace_that_cannot_be_reached_is_told_with_what_to_look_at():
    async with asyncio.timeout(30.0):
        with pytest.raises(BrokerUnavailableError, match=r"; look at the name of the namespace in the URL") as caught:
            await open_broker("servicebus://k:s3cret@127.0.0.1:1?emulator=true&management_port=1").open()
    assert not {"ssl:default", "s3cret"} & set(str(caught.value).split())
