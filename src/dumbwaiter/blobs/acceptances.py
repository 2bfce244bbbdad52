"""Idempotency: under which id a request was accepted first, by the key that its caller chose. The first one wins.

Source of the behaviour: https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header. Keys are any
text, and each tenant and model has its own. The draft answers another body under a used key with 422; here that is 409,
since the body may be all right, and stands only against the one before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.blobs.keys import safe_segment
from dumbwaiter.errors import BlobDamagedError, BlobError, BlobExistsError, BlobNotFoundError

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore

_NO_TENANT = "="  # no text becomes this segment
_TRIES = 5

_encode = msgspec.json.Encoder().encode


class Acceptance(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The request *id* was accepted at *created_at* (seconds since the Unix epoch); *digest* is of what it asks.

    A body that was streamed into the store lies under *data_ref*: whoever sends the request again needs no other.
    """

    id: str
    digest: str
    created_at: float
    data_ref: str | None = None


_decode = msgspec.json.Decoder(Acceptance).decode


async def accept(store: BlobStore, tenant: str | None, model: str, key: str, acceptance: Acceptance) -> Acceptance:
    """The acceptance under *key*: *acceptance*, which is durable then, or the one that was first.

    Compare the digests of the two: a difference means that the key was used for another request. Raises BlobError when
    the store cannot take it.
    """
    place = acceptance_key(tenant, model, key)
    for _ in range(_TRIES):
        try:
            await store.create(place, _encode(acceptance))
        except BlobExistsError:
            try:
                return await find_acceptance(store, tenant, model, key)
            except BlobNotFoundError:
                continue  # it grew too old and was removed just now
        return acceptance
    raise BlobError(f"the acceptance under {place!r} comes and goes; try again")


async def find_acceptance(store: BlobStore, tenant: str | None, model: str, key: str) -> Acceptance:
    """The acceptance under *key*. Raises BlobNotFoundError when there is none, and BlobDamagedError."""
    place = acceptance_key(tenant, model, key)
    data = await store.get(place)
    try:
        return _decode(data)
    except msgspec.DecodeError as error:
        raise BlobDamagedError(f"the acceptance under {place!r}", f"is damaged: {error}; delete it") from error


def acceptance_key(tenant: str | None, model: str, key: str) -> str:
    """Where it lies. No tenant at all is another one than any text."""
    owner = _NO_TENANT if tenant is None else safe_segment(tenant)
    return f"acceptances/{owner}/{safe_segment(model)}/{safe_segment(key)}"
