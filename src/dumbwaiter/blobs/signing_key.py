"""The key that all gateways and couriers of one blob store share, unless they are told one."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from dumbwaiter.blobs.keys import PRIVATE_FOLDER
from dumbwaiter.errors import BlobError, BlobExistsError, BlobNotFoundError, ConfigError
from dumbwaiter.signing import KEY_NBYTES, SigningKey
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore

SIGNING_KEY = f"{PRIVATE_FOLDER}signing-key"
_FORM = re.compile(rb"[0-9a-f]{64}")


async def load_signing_key(store: BlobStore, configured: str | None = None) -> SigningKey:
    """The key of the text *configured*; None: the one in *store*, made durably by whoever comes first.

    The text of one is good as *configured*, too. Raises ConfigError for a text of fewer than KEY_NBYTES bytes, and
    BlobError when the store fails or holds a damaged key.
    """
    if configured is not None:
        return _configured(configured)
    try:
        text = await store.get(SIGNING_KEY)
    except BlobNotFoundError:
        text = await _first_made(store, secrets.token_hex(KEY_NBYTES).encode())
    if not _FORM.fullmatch(text):
        # Not made anew: every id that was given out, and every webhook secret, would be void without a word.
        raise BlobError(
            f"the signing key {SIGNING_KEY!r} in {shown(store.url)} is damaged: "
            f"it must be {2 * KEY_NBYTES} hex digits; restore it, or delete it and start again: "
            "ids given out so far are unknown then"
        )
    return SigningKey(text)


async def _first_made(store: BlobStore, text: bytes) -> bytes:
    try:
        await store.create(SIGNING_KEY, text)
    except BlobExistsError:
        return await store.get(SIGNING_KEY)
    return text


def _configured(text: str) -> SigningKey:
    secret = text.encode(errors="surrogateescape")
    if len(secret) < KEY_NBYTES:
        raise ConfigError(
            f"gateway.signing_key has {len(secret)} bytes; it needs at least {KEY_NBYTES}: "
            f"openssl rand -hex {KEY_NBYTES}"
        )
    return SigningKey(secret)
