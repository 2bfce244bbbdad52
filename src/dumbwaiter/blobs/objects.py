"""Blobs in Amazon S3, Google Cloud Storage, Azure Blob Storage, or this process's memory, through obstore."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import MemoryStore, from_url

from dumbwaiter.blobs.keys import check_key, check_prefix
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.errors import BlobError, BlobExistsError, BlobNotFoundError, ConfigError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")

# obstore's asynchronous calls run on threads that abort the process when they meet the interpreter's end
# (https://github.com/PyO3/pyo3-async-runtimes/issues/40), so its blocking ones run on threads of ours.
_threads = ThreadPoolExecutor(32, thread_name_prefix="dumbwaiter-blobs")
_in_memory: dict[str, MemoryStore] = {}
_in_memory_lock = threading.Lock()


class ObjectBlobStore(BlobStore):
    """What these services confirm is durable, so *durable* changes nothing here (and memory never is)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = _connect(url)

    async def put(self, key: str, data: bytes, *, durable: bool = True) -> None:  # noqa: ARG002 - see the class
        with self._naming("write", key):
            await _in_thread(lambda: obstore.put(self._store, key, data))

    async def create(self, key: str, data: bytes) -> None:
        with self._naming("write", key):
            await _in_thread(lambda: obstore.put(self._store, key, data, mode="create"))

    async def get(self, key: str) -> bytes:
        with self._naming("read", key):
            return await _in_thread(lambda: bytes(obstore.get(self._store, key).bytes()))

    async def list(self, prefix: str) -> list[str]:
        check_prefix(prefix)
        try:
            entries = await _in_thread(lambda: obstore.list(self._store, prefix or None).collect())
        except (BaseError, OSError) as error:
            raise BlobError(f"cannot list blobs below {prefix!r} in {self.url}: {_brief(error)}") from error
        return sorted(entry["path"] for entry in entries)

    async def delete(self, key: str) -> None:
        with self._naming("delete", key), contextlib.suppress(FileNotFoundError):
            await _in_thread(lambda: obstore.delete(self._store, key))

    @contextlib.contextmanager
    def _naming(self, verb: str, key: str) -> Iterator[None]:
        check_key(key)
        try:
            yield
        except FileNotFoundError as error:
            # A missing bucket is "not found" too, but to say "no such blob" then would hide it.
            if verb != "read":
                raise BlobError(f"cannot {verb} blob {key!r} in {self.url}: {_brief(error)}") from error
            raise BlobNotFoundError(key) from None
        except AlreadyExistsError:
            raise BlobExistsError(key) from None
        except (BaseError, OSError) as error:
            raise BlobError(f"cannot {verb} blob {key!r} in {self.url}: {_brief(error)}") from error


async def _in_thread(call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_threads, call)


def _connect(url: str) -> ObjectStore:
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        with _in_memory_lock:
            return _in_memory.setdefault(rest.strip("/"), MemoryStore())
    try:
        return from_url(url)
    except (BaseError, ValueError) as error:
        raise ConfigError(f"cannot use the blob store {url!r}: {_brief(error)}") from error


def _brief(error: Exception) -> str:
    # obstore appends a dump of its Rust error after an empty line.
    return " ".join(str(error).split("\n\n", maxsplit=1)[0].split()) or type(error).__name__
