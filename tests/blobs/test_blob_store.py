"""The blob store's contract, on every store that needs no server."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.blobs import BlobStore, open_store
from dumbwaiter.blobs.keys import check_key, check_prefix, safe_segment
from dumbwaiter.errors import BlobError, BlobExistsError, BlobNotFoundError, ConfigError

pytestmark = pytest.mark.anyio

HOSTILE = ["", ".", "..", "../a", "a/../b", "/etc/passwd", "a//b", "a/", "a\0b", "a\nb", "ä", "\ud800", "a b", "a\\b"]


async def test_what_is_put_comes_back_unchanged_and_can_be_replaced(store: BlobStore):
    for data in (b"", b"\x00\xff", b"x" * 3_000_000):
        await store.put("claims/a", data)
        assert await store.get("claims/a") == data
        await store.put("claims/a", data + b"2", durable=False)
        assert await store.get("claims/a") == data + b"2"


async def test_other_bytes_are_another_version_and_reading_changes_none(store: BlobStore):
    versions = set()
    for data in (b"one", b"two", b"three"):
        await store.put("uploads/a", data)
        versions.add(await store.version("uploads/a"))
        assert await store.get("uploads/a") == data
        await store.copy("uploads/a", "claims/a")
        versions.add(await store.version("uploads/a"))
    assert len(versions) == 3
    with pytest.raises(BlobNotFoundError):
        await store.version("uploads/b")


async def test_a_look_at_a_store_that_is_there_writes_nothing(store: BlobStore):
    await store.check()
    assert await store.list("") == []


async def test_create_lets_the_first_writer_win(store: BlobStore):
    await store.create("results/a", b"first")
    with pytest.raises(BlobExistsError, match="already exists under 'results/a'") as caught:
        await store.create("results/a", b"second")
    assert caught.value.key == "results/a"
    assert await store.get("results/a") == b"first"


async def test_one_of_8_concurrent_creates_wins(store: BlobStore):
    creates = [store.create("results/a", b"%d" % number) for number in range(8)]
    outcomes = await asyncio.gather(*creates, return_exceptions=True)
    winners = [number for number, outcome in enumerate(outcomes) if outcome is None]
    assert len(winners) == 1
    assert sum(isinstance(outcome, BlobExistsError) for outcome in outcomes) == 7
    assert await store.get("results/a") == b"%d" % winners[0]


async def test_create_after_delete_is_a_first_write_again(store: BlobStore):
    await store.create("a", b"1")
    await store.delete("a")
    await store.create("a", b"2")
    assert await store.get("a") == b"2"


async def test_an_object_that_is_not_there_is_named(store: BlobStore):
    await store.put("a/b", b"")
    for key in ("nothing", "a/nothing", "a", "a/b/c"):
        with pytest.raises(BlobNotFoundError, match=f"no blob under '{key}'") as caught:
            await store.get(key)
        assert caught.value.key == key


async def test_deleting_what_is_gone_is_no_error(store: BlobStore):
    await store.put("a/b", b"")
    for key in ("a/b", "a/b", "nothing", "a", "a/b/c"):
        await store.delete(key)
    assert await store.list("") == []


async def test_list_gives_the_keys_below_a_folder_sorted(store: BlobStore):
    assert await store.list("") == []
    assert await store.list("claims/") == []
    for key in ("claims/b", "claims/a", "claims/deep/c", "claims-not", "results/r"):
        await store.put(key, b"")
    assert await store.list("claims/") == ["claims/a", "claims/b", "claims/deep/c"]
    assert await store.list("claims/deep/") == ["claims/deep/c"]
    assert await store.list("claims/a/") == []
    assert await store.list("") == ["claims-not", "claims/a", "claims/b", "claims/deep/c", "results/r"]


@pytest.mark.parametrize("prefix", ["claims", "/", "../", "a//", ".tmp-a/", "/claims/"])
async def test_a_prefix_that_names_no_folder_is_refused(store: BlobStore, prefix):
    with pytest.raises(BlobError, match=r"not a blob (prefix|key): "):
        await store.list(prefix)


@pytest.mark.parametrize("key", [*HOSTILE, "a" * 256, "a/" * 520 + "a", ".tmp-a", "a/.tmp-b", "a/.tmp-b/c"])
async def test_a_hostile_key_is_refused_by_every_verb_and_named(store: BlobStore, key):
    for call in (store.get(key), store.delete(key), store.put(key, b""), store.create(key, b"")):
        with pytest.raises(BlobError, match=r"not a blob key: .+ (has|is) ") as caught:
            await call
        assert not isinstance(caught.value, BlobNotFoundError)
    assert await store.list("") == []


async def test_300_bytes_are_a_key_where_no_segment_is_too_long(store: BlobStore):
    key = "a" * 150 + "/" + "b" * 149
    await store.put(key, b"1")
    assert await store.list("") == [key]


@pytest.mark.parametrize("text", [*HOSTILE, "a" * 5000, "ä" * 200, ".tmp-a", "%2E", "a%2Fb", "=abc", "request-1"])
async def test_any_text_becomes_a_key_that_every_store_takes_and_lists_alike(store: BlobStore, text):
    key = f"results/{safe_segment(text)}"
    await store.create(key, b"1")
    assert await store.get(key) == b"1"
    assert await store.list("results/") == [key]


@given(st.lists(st.text(st.characters()), unique=True))
def test_different_texts_never_share_a_segment(texts):
    segments = [safe_segment(text) for text in texts]
    assert len(set(segments)) == len(texts)
    for segment in segments:
        assert check_key(segment) == segment
        assert "/" not in segment


def test_nobody_can_choose_a_text_that_takes_a_hashed_ones_place():
    hashed = safe_segment("a" * 5000)
    assert hashed.startswith("=")
    assert safe_segment(hashed) != hashed
    assert safe_segment("") == "=" + safe_segment("")[1:]


@given(st.text(st.characters(), max_size=50))
def test_a_key_is_returned_as_it_is_or_refused_with_a_reason(key):
    try:
        assert check_key(key) == key
    except BlobError as error:
        assert "not a blob key" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert check_prefix(key + "/") == key + "/"
        assert not key.startswith(("/", ".tmp-"))


async def test_stores_in_memory_are_shared_by_their_name():
    await open_store("memory:shared-by-name").put("a", b"1")
    assert await open_store("memory://shared-by-name").get("a") == b"1"
    with pytest.raises(BlobNotFoundError, match="'a'"):
        await open_store("memory:another-name").get("a")


async def test_a_folder_may_be_named_in_every_usual_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    await open_store("file:some folder").put("a", b"1")
    for name in (
        f"file://{tmp_path}/some%20folder",
        f"file://localhost{tmp_path}/some folder",
        f"file:{tmp_path}/some folder",
    ):
        assert await open_store(name).get("a") == b"1"
    monkeypatch.chdir("/")
    assert await open_store(f"file:{tmp_path}/some folder").list("") == ["a"]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "az:, file:, gs:, memory:, s3:"),
        ("blobs", "az:, file:, gs:, memory:, s3:"),
        ("ftp://host/x", "az:, file:, gs:, memory:, s3:"),
        ("file:", "a folder must follow"),
        ("file://", "file:///absolute/folder"),
        ("file://host/path", "file:///absolute/folder"),
        ("s3://", "cannot use the blob store 's3://'"),
    ],
)
def test_a_url_that_names_no_store_is_named_with_what_would(url, words):
    with pytest.raises(ConfigError, match="blob store") as caught:
        open_store(url)
    assert repr(url) in str(caught.value)
    assert words in str(caught.value)


def test_what_the_client_library_quotes_of_a_url_shows_no_key():
    with pytest.raises(ConfigError, match="cannot use the blob store") as caught:
        open_store("az://s3cret@bucket")
    assert "s3cret" not in str(caught.value)
