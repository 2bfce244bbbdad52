"""Model cards: what a model takes and gives is known while no worker runs."""

from __future__ import annotations

import pytest

from dumbwaiter.blobs import BlobStore
from dumbwaiter.blobs.cards import ModelCard, load_card, load_cards, save_card
from dumbwaiter.errors import BlobDamagedError, BlobNotFoundError

pytestmark = pytest.mark.anyio


def card(name: str = "cat", **signature) -> ModelCard:
    return ModelCard(name=name, signature=signature, updated_at=1.0)


async def test_a_card_comes_back_as_it_was_saved(store: BlobStore):
    assert await save_card(store, card(inputs=["image"], output="json"))
    assert await load_card(store, "cat") == card(inputs=["image"], output="json")


async def test_a_card_is_written_only_when_it_says_something_new(store: BlobStore):
    await save_card(store, ModelCard(name="cat", signature={"shape": (1, 2)}, updated_at=1.0))
    assert not await save_card(store, ModelCard(name="cat", signature={"shape": (1, 2)}, updated_at=2.0))
    assert (await load_card(store, "cat")).updated_at == 1.0
    assert await save_card(store, ModelCard(name="cat", signature={"shape": [3]}, updated_at=3.0))
    assert (await load_card(store, "cat")).updated_at == 3.0


async def test_a_model_that_was_never_ready_has_no_card(store: BlobStore):
    with pytest.raises(BlobNotFoundError):
        await load_card(store, "cat")
    assert await load_cards(store) == []


async def test_all_cards_are_listed_by_name_and_a_damaged_one_hides_nobody(store: BlobStore):
    for name in ("dog", "a/b", "cat"):
        await save_card(store, card(name))
    await store.put("models/bad.json", b"{")
    assert [one.name for one in await load_cards(store)] == ["a/b", "cat", "dog"]


async def test_a_damaged_card_is_named_and_the_next_worker_mends_it(store: BlobStore):
    await store.put("models/cat.json", b"[]")
    with pytest.raises(BlobDamagedError, match=r"the card of model 'cat' \(models/cat.json\) is damaged"):
        await load_card(store, "cat")
    assert await save_card(store, card())
    assert await load_card(store, "cat") == card()
