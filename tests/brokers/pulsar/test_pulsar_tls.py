"""pulsar+ssl:// against a server's TLS port. pulsar-lite has none: what stands before it takes TLS."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.message import Message
from dumbwaiter.testing.servers.local import HOST
from dumbwaiter.testing.servers.pulsar import PulsarServer

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key, and a certificate for the loopback address that signs itself."""
    program = shutil.which("openssl") or pytest.skip("openssl is missing: apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, file = folder / "key.pem", folder / "certificate.pem"
    request = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={HOST}")
    names = ("-addext", f"subjectAltName=IP:{HOST}")
    subprocess.run([program, *request, *names, "-keyout", key, "-out", file], check=True, capture_output=True)
    return key, file


@pytest.fixture(scope="module")
def address(certificate, tmp_path_factory):
    server = PulsarServer(tmp_path_factory.mktemp("server"), tls=certificate)
    server.start()
    yield server.url
    server.stop()


async def test_messages_and_replies_travel_encrypted(address, certificate):
    async with open_broker(f"{address}?ca_certs={certificate[1]}") as broker:
        await broker.create_queue("q")
        inbox = await broker.open_inbox()
        await broker.send("q", [Message(reply_to=inbox.address)])
        (held,) = await broker.receive("q", max_messages=1, max_wait=10.0)
        await broker.reply(held.message.reply_to, [Message(body=bytes(2**20))])
        await broker.complete([held])
        (answer,) = await inbox.receive(max_messages=1, max_wait=10.0)
        assert len(answer.body) == 2**20


async def test_a_certificate_that_nobody_vouches_for_is_refused_unless_any_will_do(address):
    with pytest.raises(BrokerUnavailableError, match="does not answer"):
        await open_broker(address).open()
    async with open_broker(f"{address}?verify=false") as broker:
        await broker.check()
