"""A large body waits in the store; only what was checked in can be claimed."""

from __future__ import annotations

import pytest

from dumbwaiter.blobs import BlobStore
from dumbwaiter.blobs.claimcheck import check_in, check_in_stream, check_out, drop
from dumbwaiter.errors import BadInputError, BlobError, BlobNotFoundError
from dumbwaiter.message import Message

pytestmark = pytest.mark.anyio

HOSTILE = [
    "",
    "claims/x",
    "http://169.254.169.254/claims/x",
    "file:///etc/passwd",
    "blob:results/r1",
    "blob:result-bodies/r1/0",
    "blob:workers/echo/w.json",
    "blob:claims/../results/r1",
    "blob:claims/",
    "blob:claims//x",
    "blob:claims/a\0b",
    "blob:/claims/x",
    "BLOB:claims/x",
    "blob:claimsx/x",
    "blob:claims/" + "x" * 300,
    "blob:claims/.tmp-0123",
]


async def test_a_body_above_the_threshold_travels_by_reference_and_comes_back(store: BlobStore):
    message = Message(id="m1", body=b"12345", content_type="image/png", priority=3)
    light = await check_in(store, message, threshold=4)
    assert light.body == b""
    assert light.data_ref.startswith("blob:claims/m1-")
    assert await check_out(store, light) == message
    await drop(store, light)
    assert await store.list("") == []
    with pytest.raises(BlobNotFoundError, match="claims/m1-"):
        await check_out(store, light)
    await drop(store, light)


async def test_a_body_up_to_the_threshold_travels_in_the_message(store: BlobStore):
    message = Message(body=b"1234")
    assert await check_in(store, message, threshold=4) is message
    assert await check_out(store, message) is message
    await drop(store, message)
    assert await store.list("") == []


async def test_two_messages_of_one_id_do_not_write_over_each_other(store: BlobStore):
    first = await check_in(store, Message(id="same", body=b"first"), threshold=0)
    second = await check_in(store, Message(id="same", body=b"second"), threshold=0, durable=False)
    assert (await check_out(store, first)).body == b"first"
    assert (await check_out(store, second)).body == b"second"


@pytest.mark.parametrize("id_", ["../../etc/passwd", "a/b", "ä" * 300, "", "\0"])
async def test_an_id_of_any_text_is_checked_in_below_claims(store: BlobStore, id_):
    light = await check_in(store, Message(id=id_, body=b"1"), threshold=0)
    (key,) = await store.list("")
    assert key.startswith("claims/")
    assert key.count("/") == 1
    assert (await check_out(store, light)).body == b"1"


@pytest.mark.parametrize("data_ref", HOSTILE)
async def test_a_reference_to_anything_but_a_claim_is_refused_and_never_dropped(store: BlobStore, data_ref):
    await store.put("results/r1", b"secret")
    await store.put("claims/x", b"another's")
    with pytest.raises(BadInputError, match=r"dataref .*cannot be claimed: "):
        await check_out(store, Message(data_ref=data_ref))
    await drop(store, Message(data_ref=data_ref))
    assert await store.list("") == ["claims/x", "results/r1"]


async def test_a_store_that_cannot_take_a_body_says_so(local: BlobStore, tmp_path):
    (tmp_path / "blobs").write_text("a file where the folder should be")
    with pytest.raises(BlobError, match="cannot write blob 'claims/m1-"):
        await check_in(local, Message(id="m1", body=b"1"), threshold=0)


async def body(*chunks, fails=False):
    for chunk in chunks:
        yield chunk
    if fails:
        raise ConnectionResetError("the sender has gone")


@pytest.mark.parametrize("id_", ["m1", "../../etc/passwd", "a/b", "ä" * 300, "", "\0"])
async def test_a_body_that_comes_in_chunks_is_claimed_as_any_other(store: BlobStore, id_):
    data_ref, nbytes = await check_in_stream(store, id_, body(b"12", b"345"), durable=False)
    another, _ = await check_in_stream(store, id_, body(b"other"))
    assert nbytes == 5
    light = Message(id=id_, data_ref=data_ref)
    assert (await check_out(store, light)).body == b"12345"
    await drop(store, light)
    (left,) = await store.list("")
    assert another == f"blob:{left}"


async def test_a_sender_that_goes_away_in_the_middle_leaves_no_claim(store: BlobStore):
    with pytest.raises(ConnectionResetError):
        await check_in_stream(store, "m1", body(b"12", fails=True))
    assert await store.list("") == []
