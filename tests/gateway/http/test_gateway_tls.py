"""TLS by certificate files: real handshakes, and the same limits as without."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl

import httpx
import psutil
import pytest
from gateway_running import gateway, raw_connection

from certificates import make_certificate, trusting
from dumbwaiter.config import GatewaySettings
from dumbwaiter.errors import ConfigError
from dumbwaiter.gateway import run_gateway, server
from dumbwaiter.testing import eventually
from echo_worker import serving

pytestmark = pytest.mark.anyio

POST = b"POST /v1/models/echo/predictions HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module", params=[True, pytest.param(False, marks=pytest.mark.trial)], ids=["uvloop", "asyncio"])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param}  # their TLS is written twice


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def tls(certificate):
    certfile, keyfile = certificate
    return {"certfile": str(certfile), "keyfile": str(keyfile)}


@contextlib.asynccontextmanager
async def secure(port, certificate):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(certificate[0]))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_all(reader, within=10.0):
    return await asyncio.wait_for(reader.read(), within)


async def test_a_caller_is_answered_over_tls_with_a_large_body_both_ways(broker, store, certificate, tls):
    body = os.urandom(3_000_000)
    async with serving(broker, store=store), gateway(broker, store, **tls) as running:
        url = f"https://127.0.0.1:{running.port}"
        async with httpx.AsyncClient(base_url=url, verify=trusting(certificate[0])) as http:
            for _ in range(2):
                response = await http.post("/v1/models/echo/predictions", content=body, headers={"content-type": "a/b"})
                assert (response.status_code, response.content == body) == (200, True)


async def test_what_is_not_tls_gets_no_answer_and_harms_nobody(broker, store, certificate, tls):
    async with serving(broker, store=store), gateway(broker, store, **tls) as running:
        async with raw_connection(running.port) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert b"HTTP/1.1 2" not in await read_all(reader)
        async with secure(running.port, certificate) as (reader, writer):
            writer.write(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 OK" in await asyncio.wait_for(reader.readline(), 5)


async def test_a_handshake_that_never_comes_is_cut_like_a_slow_head(broker, store, tls):
    async with (
        gateway(broker, store, header_timeout=0.3, **tls) as running,
        raw_connection(running.port) as (reader, _),
    ):
        with contextlib.suppress(ConnectionError):
            assert await read_all(reader, 5) == b""


async def test_a_slow_head_over_tls_is_408(broker, store, certificate, tls):
    async with (
        gateway(broker, store, header_timeout=0.5, **tls) as running,
        secure(running.port, certificate) as (reader, writer),
    ):
        writer.write(POST[:10])
        assert (await read_all(reader)).startswith(b"HTTP/1.1 408 ")


async def test_a_body_over_the_limit_is_413_while_the_caller_still_sends(broker, store, certificate, tls):
    """Without half-close the response can be lost in a reset, unless somebody reads on for a while."""
    async with gateway(broker, store, body_limit=1000, **tls) as running:
        await broker.create_queue("echo")
        async with secure(running.port, certificate) as (reader, writer):
            writer.write(POST + b"Content-Length: 100000000\r\n\r\n")
            for _ in range(16):
                writer.write(bytes(65536))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert head.startswith(b"HTTP/1.1 413 ")
            assert b"connection: close" in head
            assert b"body-too-large" in await asyncio.wait_for(reader.readline(), 10)
            with contextlib.suppress(ConnectionError):
                await read_all(reader)  # and it ends, whatever the caller does


async def test_connections_over_the_cap_get_503_over_tls(broker, store, certificate, tls):
    async with gateway(broker, store, max_connections=2, **tls) as running, contextlib.AsyncExitStack() as stack:
        await broker.create_queue("echo")
        for _ in range(2):
            reader, writer = await stack.enter_async_context(secure(running.port, certificate))
            writer.write(POST + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n")
            assert b" 100 " in await asyncio.wait_for(reader.readline(), 5)
        async with secure(running.port, certificate) as (reader, writer):
            writer.write(POST + b"Content-Length: 10\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 503 ")


async def test_half_handshakes_count_as_connections_and_the_oldest_make_room(broker, store, certificate, tls):
    async with gateway(broker, store, max_connections=4, **tls) as running, contextlib.AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(raw_connection(running.port)) for _ in range(10)]
        for reader, _ in crowd[:6]:
            with contextlib.suppress(ConnectionError):
                assert await read_all(reader, 5) == b""
        assert not any(reader.at_eof() for reader, _ in crowd[6:])
        async with secure(running.port, certificate) as (reader, writer):
            writer.write(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 OK" in await asyncio.wait_for(reader.readline(), 5)


async def test_an_idle_connection_over_tls_is_closed(broker, store, certificate, tls):
    async with (
        gateway(broker, store, idle_timeout=0.3, **tls) as running,
        secure(running.port, certificate) as (reader, writer),
    ):
        writer.write(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert b" 200 OK" in await read_all(reader, 10)


async def test_a_caller_who_does_not_read_its_response_over_tls_is_dropped(broker, store, certificate, tls):
    large = 24 * 1024 * 1024
    async with serving(broker, store=store), gateway(broker, store, write_timeout=0.5, **tls) as running:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        sock.connect(("127.0.0.1", running.port))
        options = {"sock": sock, "ssl": trusting(certificate[0]), "server_hostname": "localhost", "limit": 1024}
        reader, writer = await asyncio.open_connection(**options)
        writer.write(POST + b"Content-Type: a/b\r\nContent-Length: %d\r\n\r\n" % large + bytes(large))
        await writer.drain()
        await asyncio.wait_for(reader.readexactly(100), 10)
        left = large

        async def is_cut():
            return not await asyncio.to_thread(established, running.port, sock.getsockname()[1])

        await eventually(is_cut, within=15.0)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(1024 * 1024):
                left -= len(data)
        assert left > 0
        writer.transport.abort()


def established(port, caller):
    """Whether the gateway still holds its end of the connection from *caller*."""
    ends = psutil.Process().net_connections("tcp")
    return any(
        end.laddr.port == port and end.raddr and end.raddr.port == caller and end.status == "ESTABLISHED"
        for end in ends
    )


async def test_a_certificate_that_is_replaced_is_shown_to_new_connections(broker, store, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "RENEW_EVERY", 0.05)
    certfile, keyfile = make_certificate(tmp_path)
    newer = make_certificate(tmp_path, "newer")

    async def shown(port):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        certificate = ssl.DER_cert_to_PEM_cert(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.close()
        return certificate

    async with gateway(broker, store, certfile=str(certfile), keyfile=str(keyfile)) as running:
        old = await shown(running.port)
        certfile.write_text("half of a certif")

        async def still_old():
            return await shown(running.port) == old

        for _ in range(5):
            assert await still_old()
            await asyncio.sleep(0.05)
        newer[1].replace(keyfile)
        newer[0].replace(certfile)

        async def is_new():
            return await shown(running.port) != old

        await eventually(is_new)


# --- what is wrong is told at the start ---


def broken_setup(folder):
    certfile, keyfile = make_certificate(folder)
    _, foreign = make_certificate(folder, "foreign")
    secret = make_certificate(folder, "secret", passphrase="abcd")
    empty = folder / "empty.pem"
    empty.touch()
    return {
        "no key": (certfile, None, r"gateway\.keyfile is not set"),
        "no certificate": (None, keyfile, r"gateway\.certfile is not set"),
        "missing": (folder / "none.crt", keyfile, r"gateway\.certfile: cannot read .*none\.crt: No such file"),
        "missing key": (certfile, folder / "none.key", r"gateway\.keyfile: cannot read .*none\.key: No such file"),
        "a folder": (folder, keyfile, r"gateway\.certfile: cannot read .*: Is a directory"),
        "not PEM": (empty, keyfile, r"empty\.pem holds no certificate or .*own\.key no key, in PEM"),
        "swapped": (keyfile, certfile, r"holds no certificate or .* no key, in PEM"),
        "another's key": (certfile, foreign, r"the key in .*foreign\.key is not that of the certificate in .*own\.crt"),
        "encrypted": (*secret, r"gateway\.keyfile: the key in .*secret\.key is encrypted"),
    }


async def test_each_fault_of_the_files_is_named_at_the_start(broker, store, tmp_path):
    for certfile, keyfile, words in broken_setup(tmp_path).values():
        settings = GatewaySettings(port=0, certfile=certfile and str(certfile), keyfile=keyfile and str(keyfile))
        with pytest.raises(ConfigError, match=words):
            await run_gateway(broker, store, settings)


# --- one address for several gateways ---


async def test_two_gateways_share_an_address_when_both_are_told_to(broker, store):
    async with gateway(broker, store, share_port=True) as first:
        async with gateway(broker, store, share_port=True, port=first.port) as second:
            assert second.port == first.port
            statuses = set()
            for _ in range(20):
                async with httpx.AsyncClient() as http:
                    statuses.add((await http.get(f"http://127.0.0.1:{first.port}/v2/health/live")).status_code)
            assert statuses == {200}
        with pytest.raises(ConfigError, match="in use"):
            await run_gateway(broker, store, GatewaySettings(port=first.port))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = GatewaySettings(port=taken.getsockname()[1], share_port=True)
        with pytest.raises(ConfigError, match="in use"):
            await run_gateway(broker, store, settings)
