"""API keys: who may ask, for which tenant, and how much. Only hashes of their secrets are stored.

A key is one object, ``keys/{id}.{version}.json``. To change a key is to write its next version and delete the older
ones; the highest is the one that counts. So one listing shows all that changed, and whoever watches the keys reads
nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.base32 import encode
from dumbwaiter.errors import BlobError, BlobExistsError, BlobNotFoundError, DumbwaiterError
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dumbwaiter.blobs.store import BlobStore

SECRET_NBYTES = 32
_PREFIX = "keys/"
_KEY = re.compile(r"keys/([0-9a-v]{12})\.(\d{4})\.json")
_TOKEN = re.compile(r"dw_([0-9a-v]{12})_([0-9a-v]{52})")
_READS_AT_ONCE = 32
_LOOKS = 3
"""How often a listing is read again because a key changed meanwhile."""

_log = logging.getLogger("dumbwaiter.keys")


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key. *hash* is the SHA-256 of its secret, in hexadecimal; times are seconds since the Unix epoch.

    *rate* is how many predictions a second it may ask for, *burst* how many at once, *in_flight* how many may wait for
    their answer. None: no limit; of *expires_at*: never. *replaced_by* is the id of the key that a rotation made in its
    place; *expires_at* is then the end of their overlap, and no longer says how long the key was made for. A key that
    *is_revoked* is none any more: it only holds the place of its next version, so that nobody who changes the key just
    then brings it back.
    """

    id: str
    tenant: str | None
    name: str
    hash: str
    created_at: float
    expires_at: float | None = None
    rate: float | None = None
    burst: float | None = None
    in_flight: int | None = None
    replaced_by: str | None = None
    is_revoked: bool = False


class KeyNotFoundError(DumbwaiterError):
    """No such API key."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        super().__init__(f"no API key {key_id!r}; see: dumbwaiter keys list")


class KeyReplacedError(DumbwaiterError):
    """The API key *key_id* was rotated before; *successor* is the id of the one that took its place."""

    def __init__(self, key_id: str, successor: str) -> None:
        self.key_id = key_id
        self.successor = successor
        super().__init__(
            f"API key {key_id!r} was rotated before, and {successor!r} took its place: rotate that one; "
            "where it is lost or revoked, make another: dumbwaiter keys create"
        )


def mint(
    *,
    tenant: str | None,
    name: str,
    now: float,
    expires_at: float | None = None,
    rate: float | None = None,
    burst: float | None = None,
    in_flight: int | None = None,
) -> tuple[ApiKey, str]:
    """A fresh key and its token, ``dw_{id}_{secret}``, which nothing can bring back once it is lost."""
    secret = encode(secrets.token_bytes(SECRET_NBYTES))
    key = ApiKey(
        id=encode(secrets.token_bytes(8))[:12],
        tenant=tenant,
        name=name,
        hash=hashlib.sha256(secret.encode()).hexdigest(),
        created_at=now,
        expires_at=expires_at,
        rate=rate,
        burst=burst,
        in_flight=in_flight,
    )
    return key, f"dw_{key.id}_{secret}"


def read_token(token: str) -> tuple[str, str] | None:
    """The id and the secret in *token*; None for text that is no token."""
    match = _TOKEN.fullmatch(token)
    return None if match is None else (match[1], match[2])


_NOBODYS_HASH = hashlib.sha256(secrets.token_bytes(SECRET_NBYTES)).hexdigest()


def has_secret(key: ApiKey | None, secret: str) -> bool:
    """Whether *secret* is that of *key*. It takes the same time whatever is wrong, also when there is no such key."""
    wanted = _NOBODYS_HASH if key is None else key.hash
    same = hmac.compare_digest(hashlib.sha256(secret.encode()).hexdigest(), wanted)
    return same and key is not None


def is_usable(key: ApiKey, *, now: float) -> bool:
    """Whether *key* has not expired."""
    return key.expires_at is None or now < key.expires_at


class Keyring:
    """The keys in *store*, as of the last load()."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._read: dict[str, ApiKey | None] = {}
        self.keys: Mapping[str, ApiKey] = {}

    async def load(self) -> None:
        """Read what is new and forget what is gone. Raises BlobError; then the keys stay as they were.

        What cannot be read as a key opens no door: it is left out and the log names it.
        """
        for _ in range(_LOOKS):
            names = list((await _newest(self._store)).values())
            read: dict[str, ApiKey | None] = {}
            try:
                for start in range(0, len(names), _READS_AT_ONCE):
                    some = names[start : start + _READS_AT_ONCE]
                    read |= zip(some, await asyncio.gather(*map(self._of, some)), strict=True)
            except BlobNotFoundError:  # it was changed or revoked between the two; the next listing knows
                continue
            self._read = read
            self.keys = {key.id: key for key in read.values() if key is not None and not key.is_revoked}
            return
        raise BlobError(f"the API keys in {shown(self._store.url)} change faster than they can be read; try again")

    async def _of(self, name: str) -> ApiKey | None:
        if name in self._read:
            return self._read[name]
        data = await self._store.get(name)
        try:
            key = msgspec.json.decode(data, type=ApiKey)
        except msgspec.DecodeError as error:
            _log.warning("%s is no API key and is passed over: %s", name, error)
            return None
        if not name.startswith(f"{_PREFIX}{key.id}."):
            _log.warning("%s is passed over: it says that its id is %r", name, key.id)
            return None
        return key


async def save_key(store: BlobStore, key: ApiKey) -> None:
    """Add *key*, durably."""
    await store.create(_name(key.id, 1), msgspec.json.encode(key))


async def load_keys(store: BlobStore) -> list[ApiKey]:
    """All keys, the oldest first."""
    keyring = Keyring(store)
    await keyring.load()
    return sorted(keyring.keys.values(), key=lambda key: key.created_at)


async def load_key(store: BlobStore, key_id: str) -> ApiKey:
    """The key of that id. Raises KeyNotFoundError."""
    keyring = Keyring(store)
    await keyring.load()
    if key_id not in keyring.keys:
        raise KeyNotFoundError(key_id)
    return keyring.keys[key_id]


async def expire_key(store: BlobStore, key_id: str, *, at: float, replaced_by: str | None = None) -> ApiKey:
    """Let the key end at *at*, or when it would have ended anyway if that is before.

    *replaced_by*: the id of the key that takes its place. Raises KeyNotFoundError, and KeyReplacedError where one was
    to take the place that another has taken.
    """

    def ended(key: ApiKey) -> ApiKey:
        if replaced_by is not None and key.replaced_by is not None:
            raise KeyReplacedError(key_id, key.replaced_by)
        ends = at if key.expires_at is None else min(at, key.expires_at)
        return msgspec.structs.replace(key, expires_at=ends, replaced_by=replaced_by or key.replaced_by)

    return await _change(store, key_id, ended)


async def revoke_key(store: BlobStore, key_id: str) -> None:
    """End the key for good. Gateways notice within seconds. Raises KeyNotFoundError."""
    await _change(store, key_id, lambda key: msgspec.structs.replace(key, hash="", is_revoked=True))


async def _change(store: BlobStore, key_id: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey:
    """Write the key's next version, which is what *change* makes of the newest. Raises KeyNotFoundError."""
    while True:
        versions = sorted(await _versions(store, key_id))
        if not versions:
            raise KeyNotFoundError(key_id)
        try:
            # What is changed is what this very version says: the next one may have been written meanwhile.
            key = msgspec.json.decode(await store.get(_name(key_id, versions[-1])), type=ApiKey)
            if key.is_revoked:
                raise KeyNotFoundError(key_id)
            changed = change(key)
            await store.create(_name(key_id, versions[-1] + 1), msgspec.json.encode(changed))
        except (BlobNotFoundError, BlobExistsError):
            continue  # somebody else changed it just now, and got on by it
        except msgspec.DecodeError as error:
            raise KeyNotFoundError(key_id) from error
        for version in versions:
            await store.delete(_name(key_id, version))
        return changed


async def _newest(store: BlobStore) -> dict[str, str]:
    newest: dict[str, str] = {}
    for name in await store.list(_PREFIX):  # sorted, so that the highest version comes last
        match = _KEY.fullmatch(name)
        if match is not None:
            newest[match[1]] = name
    return newest


async def _versions(store: BlobStore, key_id: str) -> list[int]:
    matches = [_KEY.fullmatch(name) for name in await store.list(_PREFIX)]
    return [int(match[2]) for match in matches if match is not None and match[1] == key_id]


def _name(key_id: str, version: int) -> str:
    return f"{_PREFIX}{key_id}.{version:04d}.json"
