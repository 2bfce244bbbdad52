"""What only a real server shows: many writers in processes of their own, long listings, large bodies, and outages."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator

import obstore
import pytest

from dumbwaiter.blobs import open_store
from dumbwaiter.errors import BlobError

pytestmark = pytest.mark.anyio

MIB = 1 << 20
#: One in every run of the tests, all of them in the trials.
SERVER_KINDS = ["seaweedfs", *(pytest.param(name, marks=pytest.mark.trial) for name in ("azurite", "ministack"))]


@pytest.fixture(params=SERVER_KINDS)
def server(request, monkeypatch, store_server):
    """A running server of each kind, to which the environment leads; it runs again after the test."""
    server = store_server(request.param)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.start()


@pytest.fixture
def url(server):
    return server.new_url()


@pytest.fixture
def remote(url):
    return open_store(url)


async def random(mebibytes: int, digest=None, *, before=None) -> AsyncIterator[bytes]:
    """So many MiB; *before* is called with the number of each."""
    for number in range(mebibytes):
        if before is not None:
            before(number)
        chunk = os.urandom(MIB)
        if digest is not None:
            digest.update(chunk)
        yield chunk


async def read_all(reading) -> list[bytes]:
    return [chunk async for chunk in reading]


async def test_what_other_programs_named_as_no_key_is_not_listed(remote):
    await remote.put("claims/a", b"1")
    for name in ("notes (copy).json", "x#1", "\N{LATIN SMALL LETTER E WITH ACUTE}"):
        obstore.put(remote._store, f"claims/{name}", b"notes")
    assert len(obstore.list(remote._store, "claims/").collect()) == 4
    assert await remote.list("claims/") == ["claims/a"]
    assert [entry.key async for page in remote.scan("claims/") for entry in page] == ["claims/a"]


async def verbs_fail(remote, words: str):
    """Each verb raises BlobError with *words*, and no verb says that there is nothing."""
    calls = {
        "put": remote.put("a", b"1"),
        "create": remote.create("new", b"1"),
        "put_stream": remote.put_stream("new", random(1)),
        "get": remote.get("a"),
        "stream": anext(remote.stream("a")),
        "exists": remote.exists("a"),
        "size": remote.size("a"),
        "list": remote.list(""),
        "scan": anext(remote.scan("")),
        "delete": remote.delete("a"),
    }
    said = dict(zip(calls, await asyncio.gather(*calls.values(), return_exceptions=True), strict=True))
    for verb, error in said.items():
        assert type(error) is BlobError, f"{verb}: {error!r}"
        assert words in str(error), verb
        assert "\n" not in str(error), verb
        assert "kitchen-secret" not in str(error), verb


async def test_of_24_writers_in_three_processes_one_wins_and_all_others_read_its_words(url, remote, child):
    writers = [child("create", url, f"p{number}") for number in range(3)]
    for writer in writers:
        assert await asyncio.to_thread(writer.stdout.readline) == "ready\n"
    told = await asyncio.gather(*(asyncio.to_thread(writer.communicate, "go\n") for writer in writers))
    lines = [line.split() for out, _ in told for line in out.splitlines()]
    [winner] = [words[1] for words in lines if words[0] == "won"]
    assert {words[2] for words in lines if words[0] == "lost"} == {winner}
    assert len(lines) == 24
    assert await remote.get("results/contended") == winner.encode() * 1000


async def test_a_folder_of_more_objects_than_a_page_is_listed_whole_and_sorted(remote):
    keys = [f"claims/{number:05}" for number in range(1100)]
    await asyncio.gather(*(remote.put(key, b"12") for key in [*reversed(keys), "claims-not", "results/r"]))
    assert await remote.list("claims/") == keys
    pages = [page async for page in remote.scan("claims/")]
    assert sorted(entry.key for page in pages for entry in page) == keys
    assert {entry.nbytes for page in pages for entry in page} == {2}


async def test_a_large_body_goes_there_in_parts_and_comes_back_the_same(remote):
    sent = hashlib.sha256()
    assert await remote.put_stream("large", random(33, sent)) == 33 * MIB == await remote.size("large")
    got = hashlib.sha256()
    async for chunk in remote.stream("large"):
        got.update(chunk)
    assert got.digest() == sent.digest()


@pytest.mark.parametrize("server", ["seaweedfs", "azurite"], indirect=True)
async def test_wrong_credentials_are_a_failure_of_every_verb_and_nothing_is_missing(server, url, monkeypatch):
    await open_store(url).put("a", b"1")
    for name, value in server.wrong_credentials.items():
        monkeypatch.setenv(name, value)
    await verbs_fail(open_store(url), "403")


@pytest.mark.parametrize("server", ["seaweedfs", "ministack", "azurite"], indirect=True)
async def test_a_bucket_that_is_not_there_is_no_store_in_which_nothing_is(server):
    url = f"{server.scheme}://no-such-bucket-here/x"
    looks = {
        "check": lambda remote: remote.check(),
        "get": lambda remote: remote.get("a"),
        "stream": lambda remote: anext(remote.stream("a")),
        "exists": lambda remote: remote.exists("a"),
        "size": lambda remote: remote.size("a"),
        "list": lambda remote: remote.list(""),
        "scan": lambda remote: anext(remote.scan("")),
        "delete": lambda remote: remote.delete("a"),
        "copy": lambda remote: remote.copy("a", "b"),
    }
    for verb, look in looks.items():
        with pytest.raises(BlobError, match=r"there is no such (bucket|container) \(\w+\); make it, or mend") as caught:
            await look(open_store(url))
        assert type(caught.value) is BlobError, verb
        assert len(str(caught.value)) < 200, verb


# SeaweedFS makes a bucket that is missing, for its administrators.
@pytest.mark.parametrize("server", ["ministack", "azurite"], indirect=True)
async def test_a_bucket_that_is_not_there_cannot_be_written_to(server):
    remote = open_store(f"{server.scheme}://no-such-bucket-here/x")
    for write in (remote.put("a", b"1"), remote.create("a", b"1"), remote.put_stream("a", random(1))):
        with pytest.raises(BlobError, match=r"cannot write blob 'a' .*: there is no such (bucket|container)") as caught:
            await write
        assert type(caught.value) is BlobError


@pytest.mark.parametrize("server", ["seaweedfs", "azurite"], indirect=True)
async def test_a_refusal_is_told_without_the_xml_around_it(server, url, monkeypatch):
    for name, value in server.wrong_credentials.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BlobError, match=r": 403 Forbidden: \w+: ") as caught:
        await open_store(url).check()
    assert "<" not in str(caught.value)
    assert "RequestId" not in str(caught.value)


async def test_a_look_at_a_server_that_is_down_fails_within_seconds(server, remote):
    server.stop()
    async with asyncio.timeout(20):
        with pytest.raises(BlobError, match="cannot use the blob store"):
            await remote.check()


@pytest.mark.parametrize("server", ["seaweedfs", "azurite"], indirect=True)
async def test_an_address_without_tls_that_is_not_allowed_names_the_variable(server, url, monkeypatch):
    name = "AZURE_ALLOW_HTTP" if server.scheme == "az" else "AWS_ALLOW_HTTP"
    monkeypatch.delenv(name)
    with pytest.raises(BlobError, match=rf"without TLS it is not talked to: set {name}=true, or give it an https://"):
        await open_store(url).get("a")


async def test_a_server_that_is_down_fails_every_verb_and_is_used_again_when_it_is_back(server, remote):
    server.stop()
    await verbs_fail(remote, "")
    server.start()
    await remote.put("a", b"2")
    assert await remote.get("a") == b"2"
    await remote.create("b", b"3")


async def test_a_server_that_hangs_fails_in_bounded_time(server, url, monkeypatch):
    monkeypatch.setenv(f"{'AZURE' if server.scheme == 'az' else 'AWS'}_READ_TIMEOUT", "100ms")
    remote = open_store(url)
    server.pause(signal.SIGSTOP)
    try:
        async with asyncio.timeout(45):
            with pytest.raises(BlobError, match="cannot read blob 'a'"):
                await remote.get("a")
    finally:
        server.pause(signal.SIGCONT)


async def test_a_server_killed_while_a_body_is_read_never_makes_it_look_whole(server, remote):
    await remote.put_stream("large", random(40))
    reading = remote.stream("large")
    await anext(reading)
    server.stop()
    with pytest.raises(BlobError, match="cannot read blob 'large'"):
        await read_all(reading)


async def test_a_server_killed_while_a_body_is_written_leaves_no_object(server, remote):
    def kill(number):
        if number == 20:
            server.stop()

    with pytest.raises(BlobError, match="cannot write blob 'large'"):
        await remote.put_stream("large", random(40, before=kill))
    server.start()
    assert not await remote.exists("large")


@pytest.mark.trial
@pytest.mark.parametrize("server", ["seaweedfs", "ministack"], indirect=True)
async def test_a_body_is_read_on_where_a_server_that_was_killed_comes_back_in_time(server, remote):
    sent, got = hashlib.sha256(), hashlib.sha256()
    await remote.put_stream("large", random(40, sent))
    reading = remote.stream("large")
    got.update(await anext(reading))
    server.stop()
    server.start()
    async for chunk in reading:
        got.update(chunk)
    assert got.digest() == sent.digest()


async def test_a_sweep_of_a_server_finds_what_is_old(remote):
    from dumbwaiter.blobs.retention import sweep

    await remote.put("claims/a", b"1")
    await remote.put("results/r", b"1")
    [[claim]] = [page async for page in remote.scan("claims/")]
    now = claim.modified_at
    assert await sweep(remote, older_than=60, claims_older_than=60, now=now) == 0
    assert await sweep(remote, older_than=60, claims_older_than=60, now=now + 120) == 2
    assert await remote.list("") == []
