"""Idempotency keys: the first one wins, whatever text it is, and each tenant and model has its own."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from dumbwaiter.blobs import BlobStore
from dumbwaiter.blobs.acceptances import Acceptance, accept, acceptance_key, find_acceptance
from dumbwaiter.errors import BlobDamagedError, BlobNotFoundError

pytestmark = pytest.mark.anyio

TEXTS = ["", "a", "None", "null", "=", "a/b", "../a", ".", "\0", "\ud800", "ä" * 300, "a" * 5000, "%2F"]


def asked(id_: str, digest: str = "d") -> Acceptance:
    return Acceptance(id=id_, digest=digest, created_at=1.5)


async def test_the_first_one_under_a_key_stays_whoever_comes_later(store: BlobStore):
    first = asked("first", "one")
    assert await accept(store, "t", "m", "k", first) == first
    assert await accept(store, "t", "m", "k", asked("second", "one")) == first
    assert await accept(store, "t", "m", "k", asked("third", "other")) == first
    assert await find_acceptance(store, "t", "m", "k") == first


async def test_50_at_once_agree_on_one(store: BlobStore):
    told = await asyncio.gather(*(accept(store, None, "m", "k", asked(f"r{number}")) for number in range(50)))
    assert len({one.id for one in told}) == 1
    assert await find_acceptance(store, None, "m", "k") == told[0]
    assert len(await store.list("")) == 1


async def test_a_key_that_nobody_used_is_not_found(store: BlobStore):
    await accept(store, "t", "m", "k", asked("r"))
    for place in (("t", "m", "other"), ("t", "other", "k"), ("other", "m", "k"), (None, "m", "k"), ("", "m", "k")):
        with pytest.raises(BlobNotFoundError):
            await find_acceptance(store, *place)


def test_no_two_of_any_texts_share_a_place():
    tenants = [None, *TEXTS]
    places = {acceptance_key(*three) for three in itertools.product(tenants, TEXTS, TEXTS)}
    assert len(places) == len(tenants) * len(TEXTS) ** 2


@pytest.mark.parametrize("text", TEXTS)
async def test_any_text_is_a_tenant_a_model_and_a_key(store: BlobStore, text):
    assert await accept(store, text, text, text, asked("r")) == asked("r")
    assert await accept(store, text, text, text, asked("other")) == asked("r")
    assert await accept(store, None, text, text, asked("nobody's")) == asked("nobody's")


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"id":1}', b"\xff"])
async def test_a_damaged_acceptance_is_named_and_accepts_nothing(store: BlobStore, damage):
    await store.put(acceptance_key("t", "m", "k"), damage)
    for call in (accept(store, "t", "m", "k", asked("r")), find_acceptance(store, "t", "m", "k")):
        with pytest.raises(BlobDamagedError, match="the acceptance under 'acceptances/t/m/k' is damaged") as caught:
            await call
        assert not isinstance(caught.value, BlobNotFoundError)


class RemovesOnGet:
    """A store in which what create() met is gone when it is looked for, so many *times*."""

    def __init__(self, store: BlobStore, times: int) -> None:
        self._store = store
        self.times = times

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def get(self, key):
        if self.times:
            self.times -= 1
            await self._store.delete(key)
            await self._store.create(key, b"{}") if self.times else None
        return await self._store.get(key)


async def test_one_that_is_removed_in_the_same_moment_makes_room(store: BlobStore):
    await accept(store, "t", "m", "k", asked("old"))
    assert await accept(RemovesOnGet(store, 1), "t", "m", "k", asked("new")) == asked("new")
    assert await find_acceptance(store, "t", "m", "k") == asked("new")
