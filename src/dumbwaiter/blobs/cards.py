"""Model cards: what each model takes and gives, known also while no worker of it is running."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import msgspec

from dumbwaiter.blobs.keys import safe_segment
from dumbwaiter.errors import BlobDamagedError, BlobNotFoundError

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore

_FOLDER = "models/"


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A model's *name* and *signature*, as workers announce it; *updated_at* is in seconds since the Unix epoch."""

    name: str
    signature: dict[str, Any] = msgspec.field(default_factory=dict)
    updated_at: float = msgspec.field(default_factory=time.time)


_decode = msgspec.json.Decoder(ModelCard).decode


async def save_card(store: BlobStore, card: ModelCard) -> bool:
    """Keep *card*, durably, unless the one that is kept says the same; whether it was written.

    Raises BlobError when the store cannot take it.
    """
    try:
        kept = _decode(await store.get(_key(card.name)))
    except (BlobNotFoundError, msgspec.DecodeError):
        kept = None
    encoded = msgspec.json.encode(card)
    # Compared as they are kept: JSON knows no tuples.
    if kept is not None and msgspec.structs.replace(kept, updated_at=0.0) == msgspec.structs.replace(
        _decode(encoded), updated_at=0.0
    ):
        return False
    await store.put(_key(card.name), encoded)
    return True


async def load_card(store: BlobStore, model: str) -> ModelCard:
    """The card of *model*. Raises BlobNotFoundError when no worker of it ever was ready."""
    data = await store.get(_key(model))
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        what = f"the card of model {model!r} ({_key(model)})"
        raise BlobDamagedError(what, f"is damaged: {error}; restart a worker of it") from error


async def load_cards(store: BlobStore) -> list[ModelCard]:
    """All cards, sorted by name. One that is damaged hides nobody else."""
    cards = []
    for key in await store.list(_FOLDER):
        with contextlib.suppress(BlobNotFoundError, msgspec.DecodeError):
            cards.append(_decode(await store.get(key)))
    return sorted(cards, key=lambda card: card.name)


def _key(model: str) -> str:
    return f"{_FOLDER}{safe_segment(model)}.json"
