"""Blobs in a local folder, durable and atomic.

An object is written to a file beside its place, synced, and moved (put) or hard-linked (create: fails if there is one)
into place; then the folder is synced, because a name is data of its folder. obstore's local store does none of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from dumbwaiter.blobs.chunks import gathered
from dumbwaiter.blobs.files import Opened, Root, Unfinished
from dumbwaiter.blobs.keys import PRIVATE_FOLDER, UNFINISHED_PREFIX, check_key, check_prefix, is_key
from dumbwaiter.blobs.store import CHUNK_NBYTES, PAGE, BlobEntry, BlobStore
from dumbwaiter.errors import BlobError, BlobExistsError, BlobNotFoundError

_WRITE_NBYTES = 1024 * 1024
# A folder is no object: object stores have no folders at all.
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
#: What the system says of a link, which no store makes, to itself or to where we may not look.
_LEADS_NOWHERE = {errno.ELOOP, errno.EACCES, errno.ENAMETOOLONG}


class LocalBlobStore(BlobStore):
    """One file per object below *folder*, which is made when first written to.

    Once it was there it must stay. Whatever is asked of a store whose folder was moved away, or unmounted, is a
    BlobError: that it holds nothing would be taken for the truth.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder
        self._root = Root(folder)

    async def check(self) -> None:
        await asyncio.to_thread(self._look)

    async def put(self, key: str, data: bytes, *, durable: bool = True) -> None:
        await asyncio.to_thread(self._put, key, data, durable)

    async def create(self, key: str, data: bytes) -> None:
        await asyncio.to_thread(self._create, key, data)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes], *, durable: bool = True) -> int:
        unfinished = self._unfinished(key)
        nbytes = 0
        try:
            await asyncio.to_thread(self._step, key, unfinished.open)
            async for chunk in gathered(chunks, _WRITE_NBYTES):
                await asyncio.to_thread(self._step, key, unfinished.append, chunk)
                nbytes += len(chunk)
            await asyncio.to_thread(self._step, key, partial(unfinished.finish, durable=durable))
        finally:
            # A step that a cancelled call left running in its thread ends first; it cannot bring the file back.
            await asyncio.shield(asyncio.to_thread(unfinished.discard))
        return nbytes

    async def get(self, key: str) -> bytes:
        return await asyncio.to_thread(self._get, key)

    async def stream(self, key: str, *, chunk_nbytes: int = CHUNK_NBYTES) -> AsyncIterator[bytes]:
        file = Opened(self._folder / check_key(key))
        try:
            while chunk := await asyncio.to_thread(self._read, key, file, chunk_nbytes):
                yield chunk
        finally:
            file.close()

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self._status, key) is not None

    async def size(self, key: str) -> int:
        return (await self._found(key)).st_size

    async def version(self, key: str) -> str:
        status = await self._found(key)
        return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"

    async def list(self, prefix: str) -> list[str]:
        check_prefix(prefix)
        return await asyncio.to_thread(lambda: sorted(key for key, _ in self._files(prefix)))

    async def scan(self, prefix: str) -> AsyncIterator[Sequence[BlobEntry]]:
        entries = self._entries(check_prefix(prefix))
        while page := await asyncio.to_thread(lambda: list(islice(entries, PAGE))):
            yield page

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self._delete, key)

    async def remove_leftovers(self, *, before: float) -> int:
        return await asyncio.to_thread(self._remove_leftovers, before)

    def _look(self) -> None:
        try:
            self._root.check()
            with contextlib.suppress(FileNotFoundError):
                os.scandir(self._folder).close()
        except OSError as error:
            said = f"{error.strerror or error}; name another folder, or give this user access to it"
            raise BlobError(f"cannot use the blob store in {self._folder}: {said}") from error

    def _put(self, key: str, data: bytes, durable: bool) -> None:
        with self._naming("write", key), self._unfinished(key) as unfinished:
            unfinished.append(data)
            unfinished.finish(durable=durable)

    def _create(self, key: str, data: bytes) -> None:
        with self._naming("write", key), self._unfinished(key) as unfinished:
            unfinished.append(data)
            try:
                unfinished.finish_if_absent()
            except FileExistsError:
                raise BlobExistsError(key) from None

    def _step(self, key: str, step: Callable[..., None], *arguments: bytes) -> None:
        with self._naming("write", key):
            step(*arguments)

    def _unfinished(self, key: str) -> Unfinished:
        return Unfinished(self._folder / check_key(key), private=key.startswith(PRIVATE_FOLDER))

    def _get(self, key: str) -> bytes:
        with self._naming("read", key) as path:
            try:
                return path.read_bytes()
            except _ABSENT:
                self._check_absence(key)
                raise BlobNotFoundError(key) from None

    def _read(self, key: str, file: Opened, nbytes: int) -> bytes:
        with self._naming("read", key):
            try:
                return file.read(nbytes)
            except _ABSENT:
                self._check_absence(key)
                raise BlobNotFoundError(key) from None

    async def _found(self, key: str) -> os.stat_result:
        status = await asyncio.to_thread(self._status, key)
        if status is None:
            raise BlobNotFoundError(key)
        return status

    def _status(self, key: str) -> os.stat_result | None:
        with self._naming("read", key) as path:
            try:
                status = path.stat()
            except _ABSENT:
                self._check_absence(key)
                return None
        return status if stat.S_ISREG(status.st_mode) else None

    def _delete(self, key: str) -> None:
        with self._naming("delete", key) as path:
            try:
                path.unlink()
            except _ABSENT:
                self._check_absence(key)

    def _remove_leftovers(self, before: float) -> int:
        count = 0
        self._check_listed("")
        for parent, folders, names in os.walk(self._folder, topdown=False, onerror=_raise_unless_missing):
            for name in names:
                if name.startswith(UNFINISHED_PREFIX):
                    count += _removed(Path(parent, name), before)
            # Those at the top are few, and making one anew costs two syncs.
            is_deep = Path(parent).parent != self._folder and Path(parent) != self._folder
            if is_deep and not folders + names:
                _removed(Path(parent), before)
        return count

    def _entries(self, prefix: str) -> Iterator[BlobEntry]:
        for key, file in self._files(prefix):
            with self._naming("look at", key), contextlib.suppress(*_ABSENT):
                status = file.stat()
                yield BlobEntry(key, status.st_size, status.st_mtime)

    def _files(self, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        start = len(str(self._folder)) + 1
        self._check_listed(prefix)
        for file in _files_below(str(self._folder / prefix)):
            if is_key(key := file.path[start:]):
                yield key, file
        self._check_listed(prefix)

    def _check_absence(self, key: str) -> None:
        """Raise OSError unless nothing at *key* means just that. A file in a folder's place hides all objects there."""
        self._root.check()
        kind, _, rest = key.partition("/")
        top = self._folder / kind
        if rest and top.exists() and not top.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{kind} is no folder")

    def _check_listed(self, prefix: str) -> None:
        try:
            self._check_absence(f"{prefix}*")
        except OSError as error:
            raise BlobError(f"cannot list blobs in {self._folder}: {error.strerror}") from error

    @contextlib.contextmanager
    def _naming(self, verb: str, key: str) -> Iterator[Path]:
        """The path of *key*; what the file system says against it becomes a BlobError that names both."""
        path = self._folder / check_key(key)
        try:
            self._root.check()
            yield path
        except OSError as error:
            raise BlobError(f"cannot {verb} blob {key!r} in {self._folder}: {error.strerror or error}") from error


def _files_below(folder: str) -> Iterator[os.DirEntry[str]]:
    """Not by os.walk, which holds all the names of a folder in memory. What is no regular file is no object."""
    try:
        entries = os.scandir(folder)
    except OSError as error:
        _raise_unless_missing(error)
        return
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if is_key(entry.name):
                    yield from _files_below(entry.path)
            elif _is_file(entry):
                yield entry


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError as error:
        if error.errno in _LEADS_NOWHERE:
            return False
        raise BlobError(f"cannot list blobs, for {entry.path} is a link: {error.strerror}") from error


def _removed(path: Path, before: float) -> bool:
    try:
        status = path.lstat()
        if status.st_mtime >= before:
            return False
        if stat.S_ISDIR(status.st_mode):
            path.rmdir()
        else:
            path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:  # somebody writes there again
            return False
        raise BlobError(f"cannot remove {path}, which is left over: {error.strerror}") from error
    return True


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise BlobError(f"cannot list blobs in {error.filename}: {error.strerror}") from error
