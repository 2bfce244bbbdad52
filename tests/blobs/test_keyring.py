"""API keys in the blob store: what is stored, what changes, and what may be read at the wrong moment."""

from __future__ import annotations

import asyncio
import logging

import msgspec
import pytest

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.keyring import (
    KeyNotFoundError,
    KeyReplacedError,
    Keyring,
    expire_key,
    has_secret,
    is_usable,
    load_key,
    load_keys,
    mint,
    read_token,
    revoke_key,
    save_key,
)
from dumbwaiter.errors import BlobError

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path}/blobs")


async def saved(store, **facts):
    key, token = mint(**{"tenant": None, "name": "", "now": 1.0, **facts})
    await save_key(store, key)
    return key, token


async def everything_in(store):
    return b"".join([await store.get(name) for name in await store.list("")])


async def test_a_key_comes_back_with_its_tenant_and_limits(store):
    facts = {"tenant": "acme", "name": "ci", "expires_at": 9.0, "rate": 2.5, "burst": 10.0, "in_flight": 3}
    key, _ = await saved(store, **facts)
    assert await load_keys(store) == [key]
    assert await load_key(store, key.id) == key
    assert (key.tenant, key.name, key.expires_at, key.rate, key.burst, key.in_flight) == tuple(facts.values())


async def test_the_secret_is_stored_nowhere(store):
    _, token = await saved(store)
    _, secret = read_token(token)
    stored = await everything_in(store)
    assert secret.encode() not in stored
    assert token.encode() not in stored


async def test_tokens_are_told_apart_and_belong_to_their_key_alone(store):
    one, token = await saved(store)
    other, _ = await saved(store)
    key_id, secret = read_token(token)
    assert key_id == one.id
    assert has_secret(one, secret)
    assert not has_secret(other, secret)
    assert not has_secret(None, secret)
    assert not has_secret(one, secret[:-1])
    assert not has_secret(one, "")
    assert len(secret) == 52  # 256 bits, five a character


@pytest.mark.parametrize(
    "text", ["", "dw_", "dw_a_b", "Bearer", "dw_" + "0" * 12 + "_" + "z" * 52, "x" * 10_000, "dw_é"]
)
def test_what_is_no_token_is_told_by_its_form(text):
    assert read_token(text) is None
    assert read_token(mint(tenant=None, name="", now=1.0)[1] + "\n") is None


async def test_an_expiry_can_be_brought_forward_and_not_put_off(store):
    key, _ = await saved(store)
    assert (await expire_key(store, key.id, at=50.0)).expires_at == 50.0
    assert (await expire_key(store, key.id, at=90.0)).expires_at == 50.0
    assert (await expire_key(store, key.id, at=20.0)).expires_at == 20.0
    (only,) = await load_keys(store)
    assert only.expires_at == 20.0
    assert is_usable(only, now=19.9)
    assert not is_usable(only, now=20.0)
    assert len(await store.list("keys/")) == 1


async def test_a_key_that_was_replaced_says_by_which_and_can_be_replaced_once(store):
    key, _ = await saved(store)
    assert (await expire_key(store, key.id, at=50.0, replaced_by="next")).replaced_by == "next"
    assert (await expire_key(store, key.id, at=40.0)).replaced_by == "next"
    with pytest.raises(KeyReplacedError, match="was rotated before, and 'next' took its place") as caught:
        await expire_key(store, key.id, at=30.0, replaced_by="another")
    assert (caught.value.key_id, caught.value.successor) == (key.id, "next")
    (only,) = await load_keys(store)
    assert (only.expires_at, only.replaced_by) == (40.0, "next")


async def test_a_revoked_key_is_gone_and_revoking_it_again_names_it(store):
    key, _ = await saved(store)
    other, _ = await saved(store)
    await revoke_key(store, key.id)
    assert await load_keys(store) == [other]
    for again in (revoke_key(store, key.id), load_key(store, key.id), expire_key(store, key.id, at=1.0)):
        with pytest.raises(KeyNotFoundError, match=rf"no API key '{key.id}'; see: dumbwaiter keys list"):
            await again


async def test_whoever_changed_a_key_and_died_before_deleting_the_old_version_changed_it(store):
    key, _ = await saved(store)
    changed = msgspec.structs.replace(key, expires_at=5.0)
    await store.create(f"keys/{key.id}.0002.json", msgspec.json.encode(changed))
    assert (await load_key(store, key.id)).expires_at == 5.0
    await revoke_key(store, key.id)
    assert len(await store.list("keys/")) == 1  # it holds the place of the next version
    assert await load_keys(store) == []


async def test_a_key_that_somebody_changes_while_it_is_revoked_stays_revoked(store):
    key, _ = await saved(store)
    delete = store.delete

    async def slow(name):
        await asyncio.sleep(0.05)
        await delete(name)

    store.delete = slow
    changes = [expire_key(store, key.id, at=1e12, replaced_by=name) for name in "ab"]
    await asyncio.gather(revoke_key(store, key.id), *changes, return_exceptions=True)
    assert await load_keys(store) == []
    with pytest.raises(KeyNotFoundError):
        await expire_key(store, key.id, at=1e12)


async def test_revoking_that_is_cut_short_never_brings_the_key_back(store):
    key, _ = await saved(store)
    await store.create(f"keys/{key.id}.0002.json", msgspec.json.encode(msgspec.structs.replace(key, expires_at=5.0)))
    delete, deleted = store.delete, []

    async def dying(name):
        if deleted:
            raise BlobError("the power went off")
        deleted.append(name)
        await delete(name)

    store.delete = dying
    with pytest.raises(BlobError):
        await revoke_key(store, key.id)
    assert await load_keys(store) == []


async def test_two_who_change_a_key_at_once_both_have_their_way(store):
    key, _ = await saved(store)
    await asyncio.gather(*(expire_key(store, key.id, at=float(at)) for at in range(10, 20)))
    assert (await load_key(store, key.id)).expires_at == 10.0


async def test_a_keyring_reads_each_object_once_and_sees_what_changes(store):
    one, _ = await saved(store)
    keyring, reads, get = Keyring(store), [], store.get

    async def counting(name):
        reads.append(name)
        return await get(name)

    store.get = counting
    for _ in range(3):
        await keyring.load()
    assert len(reads) == 1
    other, _ = await saved(store)
    await keyring.load()
    assert set(keyring.keys) == {one.id, other.id}
    await expire_key(store, one.id, at=3.0)
    await revoke_key(store, other.id)
    await keyring.load()
    assert keyring.keys[one.id].expires_at == 3.0
    assert set(keyring.keys) == {one.id}


async def test_hundreds_of_keys_are_all_there(store):
    ids = {(await saved(store))[0].id for _ in range(100)}
    assert {key.id for key in await load_keys(store)} == ids


async def test_a_key_that_changes_between_the_listing_and_the_look_is_read_again(store):
    key, _ = await saved(store)
    get, first = store.get, []

    async def late(name):
        if not first:
            first.append(name)
            await expire_key(store, key.id, at=7.0)
        return await get(name)

    store.get = late
    keyring = Keyring(store)
    await keyring.load()
    assert keyring.keys[key.id].expires_at == 7.0


async def test_while_the_store_is_down_the_keys_stay_as_they_were(store):
    key, _ = await saved(store)
    keyring = Keyring(store)
    await keyring.load()

    async def down(_):
        raise BlobError("down")

    store.list = down
    with pytest.raises(BlobError):
        await keyring.load()
    assert set(keyring.keys) == {key.id}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"id": "x"}', b"\xff"])
async def test_what_is_no_key_opens_no_door_and_is_named_in_the_log(store, caplog, data):
    key, _ = await saved(store)
    await store.put("keys/000000000000.0001.json", data)
    await store.put("keys/readme.txt", b"hello")
    with caplog.at_level(logging.WARNING):
        assert await load_keys(store) == [key]
    assert "keys/000000000000.0001.json" in caplog.text


async def test_a_key_under_anothers_name_is_passed_over(store, caplog):
    key, _ = mint(tenant=None, name="", now=1.0)
    await store.put("keys/000000000000.0001.json", msgspec.json.encode(key))
    assert await load_keys(store) == []
    assert "it says that its id is" in caplog.text
