"""The signing key: made once, shared by all, read by its owner only, and never replaced in silence."""

from __future__ import annotations

import asyncio
import stat

import pytest

from dumbwaiter.blobs import BlobStore, open_store
from dumbwaiter.blobs.signing_key import SIGNING_KEY, load_signing_key
from dumbwaiter.errors import BlobError, ConfigError

pytestmark = pytest.mark.anyio


def agree(*keys) -> bool:
    id_ = keys[0].new_id("m", "t", now=1.0)
    return all(key.read_id(id_, "t") is not None for key in keys)


async def test_a_key_is_made_once_and_found_again(store: BlobStore):
    first = await load_signing_key(store)
    assert agree(first, await load_signing_key(store), await load_signing_key(store, None))
    assert await store.list("") == [SIGNING_KEY]


async def test_stores_have_keys_of_their_own(store: BlobStore):
    assert not agree(await load_signing_key(store), await load_signing_key(open_store("memory:another-signing-key")))


async def test_gateways_that_start_at_once_agree(store: BlobStore):
    assert agree(*await asyncio.gather(*(load_signing_key(store) for _ in range(16))))


async def test_a_configured_text_wins_and_makes_none(store: BlobStore):
    assert agree(await load_signing_key(store, "x" * 32), await load_signing_key(store, "x" * 32))
    assert await store.list("") == []
    kept = await load_signing_key(store)
    assert not agree(kept, await load_signing_key(store, "x" * 32))
    assert agree(kept, await load_signing_key(store, (await store.get(SIGNING_KEY)).decode()))


async def test_a_configured_text_that_is_too_short_is_refused_without_showing_it(store: BlobStore):
    with pytest.raises(ConfigError, match="signing_key has 6 bytes; it needs at least 32") as caught:
        await load_signing_key(store, "secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("damage", [b"", b"x" * 64, b"0" * 63, b"0" * 64 + b"\n", b"\0" * 64])
async def test_a_damaged_key_is_named_kept_and_never_shown(store: BlobStore, damage):
    await store.put(SIGNING_KEY, damage)
    with pytest.raises(BlobError, match=r"the signing key 'secrets/signing-key' in .+ is damaged"):
        await load_signing_key(store)
    assert await store.get(SIGNING_KEY) == damage


async def test_only_its_owner_may_read_it(local: BlobStore, tmp_path):
    await load_signing_key(local)
    await local.put("claims/a", b"1")
    key, claim = ((tmp_path / "blobs" / name).stat().st_mode for name in (SIGNING_KEY, "claims/a"))
    assert stat.S_IMODE(key) == 0o600
    assert stat.S_IMODE(claim) != 0o600


async def test_a_key_is_durable_before_anybody_signs_with_it(local: BlobStore, monkeypatch):
    created = []

    async def create(key, data):
        created.append(key)
        raise BlobError("the disk is full")

    monkeypatch.setattr(local, "create", create)
    with pytest.raises(BlobError, match="the disk is full"):
        await load_signing_key(local)
    assert created == [SIGNING_KEY]
