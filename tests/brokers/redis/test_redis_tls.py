"""rediss:// against a server's TLS port."""

from __future__ import annotations

import pytest
from servers import HOST, RedisServer, free_port, redis_program
from travelling import a_request_and_its_reply_travel

from dumbwaiter.brokers import open_broker
from dumbwaiter.errors import BrokerUnavailableError

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def address(certificate, tmp_path_factory):
    file, key = map(str, certificate)
    port = free_port()
    tls = ("--tls-cert-file", file, "--tls-key-file", key, "--tls-ca-cert-file", file, "--tls-auth-clients", "no")
    server = RedisServer(redis_program(), tmp_path_factory.mktemp("server"), "--tls-port", str(port), *tls)
    server.start()
    yield f"rediss://{HOST}:{port}"
    server.stop()


async def test_messages_and_replies_travel_encrypted(address, certificate):
    await a_request_and_its_reply_travel(f"{address}?ca_certs={certificate[0]}")


async def test_a_certificate_that_nobody_vouches_for_is_refused_unless_any_will_do(address):
    with pytest.raises(BrokerUnavailableError, match=r"certificate.*; name the certificates to trust in \?ca_certs="):
        await open_broker(address).open()
    async with open_broker(f"{address}?verify=false") as broker:
        await broker.check()


async def test_a_plain_address_of_an_encrypted_port_is_unavailable_soon(address):
    with pytest.raises(BrokerUnavailableError):
        await open_broker(address.replace("rediss", "redis")).open()
