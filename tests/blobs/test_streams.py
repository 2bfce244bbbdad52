"""Objects that come and go in chunks: whole or not at all, and never whole in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dumbwaiter.blobs import BlobStore, open_store
from dumbwaiter.blobs.chunks import gathered
from dumbwaiter.errors import BlobError, BlobNotFoundError
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

MANY = 3 * 8 * 1024 * 1024 + 1
"""More than an upload in parts needs for one."""


async def each(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def failing(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    raise ConnectionResetError("the caller has gone")


class Stalled:
    """Chunks that come until *stuck* is set, and then no more."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)
        self.stuck = asyncio.Event()

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self._chunks:
            return self._chunks.pop(0)
        self.stuck.set()
        return await asyncio.Future()


async def read(store: BlobStore, key: str, **how) -> list[bytes]:
    return [chunk async for chunk in store.stream(key, **how)]


@pytest.mark.parametrize("chunks", [(), (b"",), (b"1", b"", b"23"), (b"x" * 100_000,) * 30, (b"y" * MANY,)])
async def test_what_comes_in_chunks_is_one_object(store: BlobStore, chunks):
    whole = b"".join(chunks)
    assert await store.put_stream("claims/a", each(*chunks)) == len(whole)
    assert await store.get("claims/a") == whole
    assert await store.size("claims/a") == len(whole)
    assert await store.list("") == ["claims/a"]
    assert b"".join(await read(store, "claims/a")) == whole


async def test_a_stream_replaces_what_is_there(store: BlobStore):
    await store.put("a", b"old")
    assert await store.put_stream("a", each(b"new"), durable=False) == 3
    assert await store.get("a") == b"new"


async def test_an_object_is_read_in_chunks_none_of_them_empty(store: BlobStore):
    await store.put("a", b"x" * 1_000_000)
    chunks = await read(store, "a", chunk_nbytes=300_000)
    assert sum(map(len, chunks)) == 1_000_000
    assert all(chunks)
    await store.put("empty", b"")
    assert await read(store, "empty") == []


async def test_an_object_that_is_replaced_while_it_is_read_is_read_as_it_was(store: BlobStore):
    await store.put("a", b"1" * 100_000)
    reading = store.stream("a", chunk_nbytes=10_000)
    got = await anext(reading)
    await store.put("a", b"2" * 100_000)
    got += b"".join([chunk async for chunk in reading])
    assert got == b"1" * 100_000


async def test_a_reader_may_leave_in_the_middle(store: BlobStore):
    await store.put("a", b"1" * 100_000)
    reading = store.stream("a", chunk_nbytes=10_000)
    await anext(reading)
    await reading.aclose()
    assert await store.get("a") == b"1" * 100_000


async def test_a_cancelled_reader_leaves_nothing_open(store: BlobStore):
    await store.put("a", b"1" * 1_000_000)
    for turns in range(5):
        reader = asyncio.create_task(read(store, "a", chunk_nbytes=1000))
        for _ in range(turns):
            await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader


async def test_an_object_that_is_not_there_has_no_size_and_no_bytes(store: BlobStore):
    await store.put("a/b", b"1")
    for key in ("nothing", "a/nothing", "a", "a/b/c"):
        assert not await store.exists(key)
        for call in (store.size(key), anext(store.stream(key))):
            with pytest.raises(BlobNotFoundError, match=f"no blob under '{key}'"):
                await call
    assert await store.exists("a/b")


@pytest.mark.parametrize("chunks", [(), (b"1" * 1000,), (b"2" * MANY, b"3")])
async def test_nothing_is_left_of_an_object_whose_source_fails(store: BlobStore, tmp_path, chunks):
    await store.put("old", b"old")
    for key in ("new", "old"):
        with pytest.raises(ConnectionResetError, match="the caller has gone"):
            await store.put_stream(key, failing(*chunks))
    assert await store.list("") == ["old"]
    assert await store.get("old") == b"old"
    assert list(tmp_path.rglob(".tmp-*")) == []


@pytest.mark.parametrize("chunks", [(), (b"1" * 1000,), (b"2" * MANY, b"3")])
async def test_nothing_is_left_of_an_object_whose_writing_is_cancelled(store: BlobStore, tmp_path, chunks):
    source = Stalled(*chunks)
    writing = asyncio.create_task(store.put_stream("a", source))
    await source.stuck.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await store.list("") == []
    assert list(tmp_path.rglob(".tmp-*")) == []


async def test_an_object_is_whole_or_absent_at_whatever_moment_its_writing_is_cancelled(store: BlobStore, tmp_path):
    for turns in range(40):
        writing = asyncio.create_task(store.put_stream(f"a{turns}", each(*[b"x" * 1024 * 1024] * 3), durable=False))
        for _ in range(turns):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    await eventually(lambda: not list(tmp_path.rglob(".tmp-*")), what="the end of the writing threads")
    for key in await store.list(""):
        assert await store.size(key) == 3 * 1024 * 1024


@pytest.mark.parametrize("key", ["", "../a", ".tmp-a", "a b"])
async def test_a_hostile_key_is_refused_before_anything_is_read(store: BlobStore, key):
    source = Stalled()
    for call in (store.put_stream(key, source), anext(store.stream(key)), store.exists(key), store.size(key)):
        with pytest.raises(BlobError, match="not a blob key"):
            await call
    assert not source.stuck.is_set()
    assert await store.list("") == []


async def test_small_chunks_are_gathered_into_larger_ones():
    chunks = [chunk async for chunk in gathered(each(b"12", b"", b"3", b"4567", b"8"), 3)]
    assert chunks == [b"123", b"4567", b"8"]
    assert [chunk async for chunk in gathered(each(b"", b""), 3)] == []


async def test_200_mb_stream_through_a_folder_in_little_memory(url, child):
    out, _ = await asyncio.to_thread(child("flow", url, 200).communicate)
    written, read_back, grown = map(int, out.split())
    assert written == read_back == 200 * 1024 * 1024
    assert grown < 40 * 1024 * 1024


async def test_a_full_disk_stops_a_stream_and_leaves_nothing_behind(url, child, tmp_path):
    out, _ = await asyncio.to_thread(child("overflow_stream", url).communicate)
    assert out.strip() == f"cannot write blob 'new' in {tmp_path}/blobs: File too large"
    assert list(tmp_path.rglob("*")) == [tmp_path / "blobs"]


async def test_kill_9_in_the_middle_of_a_stream_leaves_no_object(local: BlobStore, url, child):
    writer = child("stall", url)
    assert await asyncio.to_thread(writer.stdout.readline) == "stalls\n"
    writer.kill()
    await asyncio.to_thread(writer.wait)
    assert await local.list("") == []


# --- a service ---


class S3InParts(BaseHTTPRequestHandler):
    """So much of S3 as an upload in parts needs; it keeps no bodies, only their sizes and what was asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self._body()
        if "uploadId" in self.path:
            self.server.objects.append(sum(self.server.parts))
            self._answer("<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")
        else:
            self._answer("<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")

    def do_PUT(self):
        nbytes = self._body()
        if self.server.refuses_parts and "partNumber" in self.path:
            self.send_response(403)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        (self.server.parts if "partNumber" in self.path else self.server.objects).append(nbytes)
        self._answer("")

    def do_DELETE(self):
        self.server.aborted += 1
        self._answer("")

    def _body(self):
        left = nbytes = int(self.headers.get("content-length", 0))
        while left:
            piece = self.rfile.read(min(left, 1 << 20))
            if not piece:
                raise ConnectionError("the upload was given up")
            left -= len(piece)
        return nbytes

    def _answer(self, text):
        self.send_response(200)
        self.send_header("etag", '"e"')
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def s3(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), S3InParts)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # uploads that are given up
    server.parts, server.objects, server.refuses_parts, server.aborted = [], [], False, 0
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    for name, value in {
        "AWS_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_large_stream_goes_to_a_service_in_parts_in_little_memory(s3, child):
    out, _ = await asyncio.to_thread(child("pour", "s3://bucket", 200).communicate)
    written, grown = map(int, out.split())
    assert s3.objects == [0, written] == [0, 200 * 1024 * 1024]
    assert len(s3.parts) == 25
    assert grown < 80 * 1024 * 1024


async def test_a_small_stream_is_one_request(s3):
    await open_store("s3://bucket").put_stream("a", each(b"1", b"2"))
    assert (s3.objects, s3.parts) == ([2], [])


async def test_a_stream_that_is_given_up_is_never_completed(s3):
    with pytest.raises(ConnectionResetError):
        await open_store("s3://bucket").put_stream("a", failing(b"x" * MANY))
    assert s3.objects == []


async def test_a_service_that_refuses_a_part_is_told_of_with_key_and_reason(s3):
    s3.refuses_parts = True
    with pytest.raises(BlobError, match=r"cannot write blob 'a' in s3://bucket: .*403"):
        await open_store("s3://bucket").put_stream("a", each(b"x" * MANY))
    assert (s3.objects, s3.aborted) == ([], 1)
