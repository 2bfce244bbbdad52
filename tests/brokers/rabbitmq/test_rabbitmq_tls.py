"""amqps:// against a server's TLS port."""

from __future__ import annotations

import pytest
from servers import HOST, RabbitmqServer, free_port
from travelling import a_request_and_its_reply_travel

from dumbwaiter.brokers import open_broker
from dumbwaiter.errors import BrokerUnavailableError

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def address(certificate, tmp_path_factory):
    file, key = certificate
    port = free_port()
    options = {"cacertfile": file, "certfile": file, "keyfile": key, "verify": "verify_none"}
    settings = (f"ssl_options.{name} = {value}" for name, value in options.items())
    server = RabbitmqServer(tmp_path_factory.mktemp("server"), f"listeners.ssl.1 = {HOST}:{port}", *settings)
    server.start()
    yield f"amqps://{HOST}:{port}"
    server.stop()


async def test_messages_and_replies_travel_encrypted(address, certificate):
    await a_request_and_its_reply_travel(f"{address}?ca_certs={certificate[0]}")


async def test_a_certificate_that_nobody_vouches_for_is_refused_unless_any_will_do(address):
    with pytest.raises(BrokerUnavailableError, match=r"certificate.*; name the certificates to trust in \?ca_certs="):
        await open_broker(address).open()
    async with open_broker(f"{address}?verify=false") as broker:
        await broker.check()


async def test_tls_on_a_port_without_it_is_told_as_such(server):
    with pytest.raises(BrokerUnavailableError, match=r"by TLS: .*; write amqp:// if it has no TLS"):
        await open_broker(server.url.replace("amqp://", "amqps://")).open()
