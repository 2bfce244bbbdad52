"""Uploads by the clients: to the store itself where it can sign, else to the gateway; piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import tracemalloc

import httpx
import pytest
from service import Service, gateway_before

from dumbwaiter import AsyncClient, Client
from dumbwaiter.blobs.keyring import mint, save_key
from dumbwaiter.client import gateway_uploads, uploading
from dumbwaiter.errors import (
    AccessError,
    BadInputError,
    ConfigError,
    GatewayError,
    GatewayUnavailableError,
    InputRefusedError,
    UploadError,
)
from store_servers import SERVER_KINDS

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9000


@pytest.fixture
def blobs(request, tmp_path, monkeypatch, store_server):
    kind = getattr(request, "param", "file")
    if kind == "file":
        return f"file://{tmp_path}/blobs"
    server = store_server(kind)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.new_url()


@pytest.fixture
def service(tmp_path, blobs):
    with Service(f"sqlite://{tmp_path}/queue.db", blobs) as service:
        yield service


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(PNG)
    return path


class Store:
    """A store that somebody listens to: it answers each request with the next of *answers*, the last one for ever."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[dict[str, str], bytes]] = []

    @contextlib.asynccontextmanager
    async def listening(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/bucket/key?secret=signature"

    async def _serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        body = await reader.readexactly(int(headers["content-length"])) if answer else b""
        self.requests.append((headers, body))
        if answer:
            writer.write(f"HTTP/1.1 {answer} Said\r\ncontent-length: 4\r\nconnection: close\r\n\r\nwhy?".encode())
        writer.close()


@contextlib.asynccontextmanager
async def uploading_to(url, service, monkeypatch, **settings):
    """A client whose gateway sends its uploads there."""
    with gateway_before(service) as gateway:
        async with AsyncClient(gateway, **settings) as client:
            call = client._door._connection.call

            async def answer(method, path, **more):
                if path != "v1/uploads":
                    return await call(method, path, **more)
                told = {"id": "0abc", "url": url, "method": "PUT", "headers": {"x-kind": "blob"}, "limit": 10**9}
                return httpx.Response(201, json=told)

            monkeypatch.setattr(client._door._connection, "call", answer)
            yield client


@pytest.mark.parametrize("blobs", ["file", *SERVER_KINDS], indirect=True)
async def test_what_was_uploaded_is_the_input_of_a_prediction(service, picture):
    with gateway_before(service) as gateway:
        async with AsyncClient(gateway) as client:
            for content in (picture, str(picture), PNG, memoryview(PNG)):
                given = await client.upload(content)
                assert given.keys() == {"$upload", "content_type"}
                answer = await (await client.submit("echo", given)).message(20)
                assert (answer.content_type, answer.body) == ("image/png", PNG)
        assert all(request.body == b"" and request.data_ref for request in service.requests)


def test_ordinary_code_uploads_too_and_says_what_it_is(service, picture):
    with gateway_before(service) as gateway, Client(gateway) as client:
        given = client.upload(picture, content_type="image/x-mine")
        assert given["content_type"] == "image/x-mine"
        for _ in range(2):
            assert client.submit("echo", given).message(20).body == PNG


async def test_a_gateway_that_wants_a_key_gets_it_and_without_it_says_so(service, picture):
    key, token = mint(tenant="acme", name="", now=0.0)
    service.run(save_key(service.store, key))
    with gateway_before(service, auth="on") as gateway:
        async with AsyncClient(gateway, api_key=token) as client:
            given = await client.upload(picture)
            assert (await (await client.submit("echo", given)).message(20)).body == PNG
        async with AsyncClient(gateway) as client:
            with pytest.raises(AccessError, match="401"):
                await client.upload(picture)


async def test_a_large_file_is_never_whole_in_memory(service, tmp_path, monkeypatch):
    large, nbytes = tmp_path / "large.bin", 64 * 1024 * 1024
    with large.open("wb") as file:
        file.truncate(nbytes)

    class Sink(Store):
        async def _serve(self, reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            assert f"content-length: {nbytes}".encode() in head.lower()
            left = nbytes
            while left:
                left -= len(await reader.read(65536))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            writer.close()

    async with Sink(200).listening() as url, uploading_to(url, service, monkeypatch) as client:
        tracemalloc.start()
        try:
            assert await client.upload(large) == {"$upload": "0abc", "content_type": "application/octet-stream"}
            assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
        finally:
            tracemalloc.stop()


async def test_the_store_gets_what_the_gateway_said_and_nothing_that_is_the_gateways(service, monkeypatch):
    store = Store(200)
    async with (
        store.listening() as url,
        uploading_to(url, service, monkeypatch, api_key="hush", tenant="acme") as client,
    ):
        await client.upload(b"soup")
    [(headers, body)] = store.requests
    assert body == b"soup"
    assert headers["x-kind"] == "blob"
    assert not {"authorization", "dumbwaiter-tenant", "transfer-encoding"} & headers.keys()


@pytest.mark.parametrize("first", [0, 503, 429], ids=["hangs up", "503", "429"])
async def test_what_broke_off_is_put_again_from_its_beginning(service, picture, monkeypatch, first):
    monkeypatch.setattr(gateway_uploads, "pause_before", lambda *_, **__: 0.01)
    store = Store(first, 200)
    async with store.listening() as url, uploading_to(url, service, monkeypatch) as client:
        await client.upload(picture)
    assert [len(body) for _, body in store.requests][-1] == len(PNG)
    assert len(store.requests) == 2


async def test_a_store_that_refuses_is_named_without_the_signature(service, monkeypatch):
    monkeypatch.setattr(gateway_uploads, "pause_before", lambda *_, **__: 0.01)
    for answer, times in ((403, 1), (503, 3)):
        store = Store(answer)
        async with store.listening() as url, uploading_to(url, service, monkeypatch, retries=2) as client:
            with pytest.raises(UploadError, match=rf"/bucket/key answered {answer}: why\?") as caught:
                await client.upload(b"soup")
        assert (caught.value.status, "signature" in str(caught.value)) == (answer, False)
        assert len(store.requests) == times


async def test_a_store_that_is_not_there_is_named(service, monkeypatch):
    async with Store(200).listening() as url:
        pass
    async with uploading_to(url, service, monkeypatch, retries=0) as client:
        with pytest.raises(UploadError, match="upload again") as caught:
            await client.upload(b"soup")
        assert caught.value.status is None


async def test_more_than_the_gateway_takes_is_not_even_sent(service):
    with gateway_before(service, body_limit=100) as gateway:
        async with AsyncClient(gateway) as client:
            with pytest.raises(InputRefusedError, match="101 bytes are more than the 100"):
                await client.upload(bytes(101))


async def test_a_file_that_shrinks_meanwhile_is_told(service, picture, monkeypatch):
    looked = uploading.source_of

    def look_and_cut(content):
        source = looked(content)
        os.truncate(picture, 1000)
        return source

    monkeypatch.setattr("dumbwaiter.client.asynchronous.source_of", look_and_cut)
    with gateway_before(service) as gateway:
        async with AsyncClient(gateway) as client:
            with pytest.raises(BadInputError, match="shorter while it was uploaded"):
                await client.upload(picture)


async def test_what_cannot_be_uploaded_is_told_before_anybody_is_asked(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    async with AsyncClient("http://127.0.0.1:1") as client:
        for content, why in (
            (tmp_path / "gone", "cannot read .*gone: No such file"),
            (tmp_path, "no regular file"),
            (tmp_path / "pipe", "no regular file"),
            (tmp_path / "empty", "it is empty"),
            (b"", "it is empty"),
        ):
            with pytest.raises(BadInputError, match=why):
                await client.upload(content)


async def test_over_a_broker_there_is_nothing_to_upload_to():
    async with AsyncClient(f"memory:{secrets.token_hex(4)}") as client:
        with pytest.raises(ConfigError, match="give this client a gateway's URL"):
            await client.upload(b"soup")


async def test_a_gateway_that_is_down_is_named():
    async with AsyncClient("http://127.0.0.1:1", retries=0) as client:
        with pytest.raises(GatewayUnavailableError, match="nothing listens there"):
            await client.upload(b"soup")
    assert issubclass(GatewayUnavailableError, GatewayError)
