"""Blobs in a local folder, durable and atomic.

An object is written to a file beside its place, synced, and moved (put) or hard-linked (create: fails if there is one)
into place; then the folder is synced, because a name is data of its folder. obstore's local store does none of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from dumbwaiter.blobs.keys import UNFINISHED_PREFIX, check_key, check_prefix
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.errors import BlobError, BlobExistsError, BlobNotFoundError

# A folder is no object: object stores have no folders at all.
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class LocalBlobStore(BlobStore):
    """One file per object below *folder*, which is made when first written to."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder

    async def put(self, key: str, data: bytes, *, durable: bool = True) -> None:
        await asyncio.to_thread(self._put, key, data, durable)

    async def create(self, key: str, data: bytes) -> None:
        await asyncio.to_thread(self._create, key, data)

    async def get(self, key: str) -> bytes:
        return await asyncio.to_thread(self._get, key)

    async def list(self, prefix: str) -> list[str]:
        return await asyncio.to_thread(_keys_below, self._folder, check_prefix(prefix))

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self._delete, key)

    def _put(self, key: str, data: bytes, durable: bool) -> None:
        with self._naming("write", key) as path:
            _make_folder(path.parent)
            with _written_beside(path, data, durable=durable) as unfinished:
                unfinished.replace(path)
            if durable:
                _sync_folder(path.parent)

    def _create(self, key: str, data: bytes) -> None:
        with self._naming("write", key) as path:
            _make_folder(path.parent)
            with _written_beside(path, data, durable=True) as unfinished:
                try:
                    path.hardlink_to(unfinished)
                except FileExistsError:
                    # The winner may not have synced the folder yet, but our caller will rely on its object.
                    _sync_folder(path.parent)
                    raise BlobExistsError(key) from None
            _sync_folder(path.parent)

    def _get(self, key: str) -> bytes:
        with self._naming("read", key) as path:
            try:
                return path.read_bytes()
            except _ABSENT:
                raise BlobNotFoundError(key) from None

    def _delete(self, key: str) -> None:
        with self._naming("delete", key) as path, contextlib.suppress(*_ABSENT):
            path.unlink()

    @contextlib.contextmanager
    def _naming(self, verb: str, key: str) -> Iterator[Path]:
        """The path of *key*; what the file system says against it becomes a BlobError that names both."""
        path = self._folder / check_key(key)
        try:
            yield path
        except OSError as error:
            raise BlobError(f"cannot {verb} blob {key!r} in {self._folder}: {error.strerror or error}") from error


def _keys_below(root: Path, prefix: str) -> list[str]:
    found = []
    for parent, _, names in os.walk(root / prefix, onerror=_raise_unless_missing):
        inner = Path(parent).relative_to(root)
        found += [str(inner / name) for name in names if not name.startswith(UNFINISHED_PREFIX)]
    return sorted(found)


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    # Also for an object that need not be durable: the next one in this folder may.
    _sync_folder(folder.parent)


@contextlib.contextmanager
def _written_beside(path: Path, data: bytes, *, durable: bool) -> Iterator[Path]:
    """A file with *data* in the folder of *path*, gone afterwards unless it was moved."""
    unfinished = path.parent / f"{UNFINISHED_PREFIX}{secrets.token_hex(8)}"
    try:
        with unfinished.open("xb", buffering=0) as file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            if durable:
                os.fsync(file.fileno())
        yield unfinished
    finally:
        unfinished.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise BlobError(f"cannot list blobs in {error.filename}: {error.strerror}") from error
