"""Claim check: a body too big for the broker waits in the blob store, and the message carries its reference.

Source: https://www.enterpriseintegrationpatterns.com/patterns/messaging/StoreInLibrary.html. A reference comes with
the request, so it is the sender's word: only ``blob:claims/...`` is honoured. Anything else in the store (results,
other callers' answers) and anything outside it (files, other hosts) is nobody's to claim.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.blobs.keys import check_key, safe_segment
from dumbwaiter.errors import BadInputError, BlobError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.message import Message

ATTRIBUTES_NBYTES = 4096
"""So much of what a broker takes is kept for a message's attributes, where it takes twice as much."""

_SCHEME = "blob:"
_FOLDER = "claims/"


def claim_threshold_for(limit: int | None, wanted: int) -> int:
    """The largest body that travels in a message: *wanted* bytes, or less where the broker's *limit* is near.

    A tenth of *limit* (None: there is none), and at least 4 KiB or half of it, is left for the attributes.
    """
    if limit is None:
        return wanted
    return min(wanted, limit - max(limit // 10, min(ATTRIBUTES_NBYTES, limit // 2)))


async def check_in(store: BlobStore, message: Message, *, threshold: int, durable: bool = True) -> Message:
    """Put a body of more than *threshold* bytes into *store*; the message that refers to it (or *message* itself).

    Raises BlobError when the store cannot take it.
    """
    if len(message.body) <= threshold:
        return message
    key = _new_key(message.id)
    await store.put(key, message.body, durable=durable)
    return msgspec.structs.replace(message, body=b"", data_ref=_SCHEME + key)


async def check_in_stream(
    store: BlobStore, id_: str, chunks: AsyncIterator[bytes], *, durable: bool = True
) -> tuple[str, int]:
    """Put a body that comes in *chunks* into *store*, for the message *id_*; its data_ref, and its number of bytes.

    Nothing is left of it when *chunks* raises or the call is cancelled. Raises BlobError when the store cannot take it.
    """
    key = _new_key(id_)
    nbytes = await store.put_stream(key, chunks, durable=durable)
    return _SCHEME + key, nbytes


async def check_in_upload(store: BlobStore, upload_id: str) -> str:
    """Copy what was uploaded under *upload_id* into a claim that its uploader cannot touch; the data_ref.

    The id is believed: whoever calls has checked whose it is. Raises BlobNotFoundError when nothing was uploaded.
    """
    key = _new_key(upload_id)
    await store.copy(upload_key(upload_id), key)
    return _SCHEME + key


def upload_key(upload_id: str) -> str:
    """Where an upload lies until a prediction names it."""
    return f"uploads/{safe_segment(upload_id)}"


async def check_out(store: BlobStore, message: Message) -> Message:
    """The message with its body in hand; *message* itself when it carries no reference.

    Raises BadInputError for a reference that may not be claimed, BlobNotFoundError when the object is gone (the
    message is not at fault: its store may be another one) and BlobError when the store fails.
    """
    if message.data_ref is None:
        return message
    body = await store.get(_claimed_key(message.data_ref))
    return msgspec.structs.replace(message, body=body, data_ref=None)


def stream_out(store: BlobStore, message: Message, *, chunk_nbytes: int) -> AsyncIterator[bytes]:
    """The claimed body in chunks, without holding all of it. Raises as check_out() does, the last two as it goes."""
    if message.data_ref is None:
        raise ValueError(f"message {message.id!r} carries its body itself")
    return store.stream(_claimed_key(message.data_ref), chunk_nbytes=chunk_nbytes)


async def claim_nbytes(store: BlobStore, data_ref: str) -> int:
    """The size of the body that *data_ref* claims. Raises as check_out() does."""
    return await store.size(_claimed_key(data_ref))


async def drop(store: BlobStore, message: Message) -> None:
    """Delete the claimed body, once nobody will need it. A message without a claim of ours is left alone."""
    if message.data_ref is None:
        return
    try:
        key = _claimed_key(message.data_ref)
    except BadInputError:
        return
    await store.delete(key)


def _new_key(id_: str) -> str:
    # Ids are chosen by senders: two of the same id must not write over each other's body.
    return f"{_FOLDER}{safe_segment(id_)}-{secrets.token_hex(8)}"


def _claimed_key(data_ref: str) -> str:
    key = data_ref.removeprefix(_SCHEME)
    if not data_ref.startswith(_SCHEME + _FOLDER):
        raise BadInputError(f"dataref {data_ref[:200]!r} cannot be claimed: only {_SCHEME}{_FOLDER}... is honoured")
    try:
        return check_key(key)
    except BlobError as error:
        raise BadInputError(f"dataref cannot be claimed: {error}") from None
