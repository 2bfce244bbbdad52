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
    with pytest.raises(BrokerUnavailableError, match="certificate"):
        await open_broker(address).open()
    async with open_broker(f"{address}?verify=false") as broker:
        await broker.check()


async def test_a_file_of_certificates_that_is_not_there_is_named(address):
    with pytest.raises(BrokerUnavailableError, match=r"No such file"):
        await open_broker(f"{address}?ca_certs=/nowhere.pem").open()
