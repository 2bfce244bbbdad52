"""Cloud stores through obstore: what a service says against us is told truthfully, and processes end in peace."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dumbwaiter.blobs import open_store
from dumbwaiter.errors import BlobError, BlobExistsError, BlobNotFoundError
from dumbwaiter.object_stores import client_options

pytestmark = pytest.mark.anyio


LISTED = (
    "<Contents><Key>{}</Key><Size>3</Size><ETag>e</ETag><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
)
LISTING = "<ListBucketResult><Name>b</Name><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>{}</ListBucketResult>"


class S3ThatRefuses(BaseHTTPRequestHandler):
    """Speaks as S3 does when it refuses: the bucket's name says how. In "strewn" there are *names*."""

    names: Sequence[str] = ()

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        bucket = self.path.split("/")[1].split("?")[0]
        if bucket == "strewn":
            self._send(200, LISTING.format("".join(map(LISTED.format, self.names))).encode())
            return
        status, code = {
            "absent": (404, "NoSuchBucket"),
            "forbidden": (403, "AccessDenied"),
            "taken": (412, "PreconditionFailed"),
            "careless": (200, "OK"),
        }[bucket]
        body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self._send(status, body)

    def _send(self, status, body):
        self.send_response(status)
        self.send_header("etag", '"e"')
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


async def test_what_no_key_names_is_no_object_of_a_bucket(s3, monkeypatch):
    """Names that other programs gave, and the "folders" that a service's console makes."""
    store = s3("s3://strewn/ours")
    names = ("", "a", "b c", "x#1", "\N{LATIN SMALL LETTER E WITH ACUTE}", "d/e")
    monkeypatch.setattr(S3ThatRefuses, "names", [f"ours/claims/{name}" for name in names])
    assert await store.list("claims/") == ["claims/a", "claims/d/e"]
    assert [entry.key async for page in store.scan("claims/") for entry in page] == ["claims/a", "claims/d/e"]


@pytest.mark.parametrize("name", ["claims//a", "claims/../a"])
async def test_an_object_whose_name_hides_those_beside_it_is_named(s3, monkeypatch, name):
    store = s3("s3://strewn/ours")
    monkeypatch.setattr(S3ThatRefuses, "names", ["ours/claims/a", f"ours/{name}"])
    match = rf"cannot list blobs below 'claims/' in s3://strewn/ours: .*\"ours/{name}\".*: delete it"
    with pytest.raises(BlobError, match=match):
        await store.list("claims/")
    with pytest.raises(BlobError, match=match):
        _ = [page async for page in store.scan("claims/")]


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


async def test_a_service_that_ignores_the_condition_is_found_before_it_replaces_an_answer(s3):
    for store in (s3("s3://careless"), s3("s3://careless")):
        for _ in range(2):
            with pytest.raises(BlobError, match=r"s3://careless cannot let the first writer .* ignores If-None-Match"):
                await store.create("a", b"1")
        await store.put("a", b"1")


async def test_a_service_that_is_said_to_know_no_conditions_is_refused_with_the_setting(s3, monkeypatch):
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    with pytest.raises(BlobError, match=r"s3://taken cannot let the first writer .* leave AWS_CONDITIONAL_PUT unset"):
        await s3("s3://taken").create("a", b"1")


def test_the_environment_still_says_how_a_service_is_reached(monkeypatch):
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AZURE_READ_TIMEOUT", "3s")
    assert client_options("s3://bucket") == {
        "connect_timeout": "5s",
        "read_timeout": "20s",
        "timeout": "1day",
        "allow_http": "true",
    }
    assert client_options("az://container")["read_timeout"] == "3s"
    assert "allow_http" not in client_options("az://container")
