"""Cloud stores through obstore: what a service says against us is told truthfully, and processes end in peace."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dumbwaiter.blobs import open_store
from dumbwaiter.errors import BlobError, BlobExistsError, BlobNotFoundError

pytestmark = pytest.mark.anyio


class S3ThatRefuses(BaseHTTPRequestHandler):
    """Speaks as S3 does when it refuses: the bucket's name says how."""

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        bucket = self.path.split("/")[1].split("?")[0]
        status, code = {
            "absent": (404, "NoSuchBucket"),
            "forbidden": (403, "AccessDenied"),
            "taken": (412, "PreconditionFailed"),
        }[bucket]
        body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_):
        pass


@pytest.fixture
def s3(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), S3ThatRefuses)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    yield open_store
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_refusal_is_told_with_verb_key_address_and_reason(s3):
    store = s3("s3://forbidden")
    for verb, call in (
        ("write", store.put("a", b"1")),
        ("write", store.create("a", b"1")),
        ("read", store.get("a")),
        ("delete", store.delete("a")),
    ):
        with pytest.raises(BlobError, match=rf"cannot {verb} blob 'a' in s3://forbidden: .*AccessDenied") as caught:
            await call
        assert type(caught.value) is BlobError
        assert "\n" not in str(caught.value)
    with pytest.raises(BlobError, match=r"cannot list blobs below 'x/' in s3://forbidden: .*AccessDenied"):
        await store.list("x/")


async def test_a_missing_bucket_is_a_failure_to_write_and_not_a_missing_object(s3):
    store = s3("s3://absent")
    for call in (store.put("a", b"1"), store.create("a", b"1")):
        with pytest.raises(BlobError, match=r"cannot write blob 'a' in s3://absent: .*NoSuchBucket") as caught:
            await call
        assert not isinstance(caught.value, BlobNotFoundError)


async def test_a_precondition_that_fails_means_that_another_was_first(s3):
    with pytest.raises(BlobExistsError, match="'a'"):
        await s3("s3://taken").create("a", b"1")


@pytest.mark.parametrize("number", range(3))
async def test_a_process_that_used_a_store_ends_in_peace(child, number):
    # obstore's own threads abort one process in two that ends right after its asynchronous calls.
    writers = [child("leave", f"memory:{place}") for place in range(3)]
    for writer in writers:
        await asyncio.to_thread(writer.communicate)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
