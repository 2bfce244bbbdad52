"""Blobs in Amazon S3, Google Cloud Storage, Azure Blob Storage, or this process's memory, through obstore."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, InvalidPathError
from obstore.store import MemoryStore

from dumbwaiter.blobs.chunks import gathered
from dumbwaiter.blobs.keys import check_key, check_prefix, is_key
from dumbwaiter.blobs.store import CHUNK_NBYTES, PAGE, BlobEntry, BlobStore
from dumbwaiter.errors import BlobError, BlobExistsError, BlobNotFoundError
from dumbwaiter.object_stores import BUCKETS, NO_BUCKET, NO_OBJECT, connect, error_code, reason
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")

# obstore's asynchronous calls run on threads that abort the process when they meet the interpreter's end
# (https://github.com/PyO3/pyo3-async-runtimes/issues/40), so its blocking ones run on threads of ours.
_threads = ThreadPoolExecutor(32, thread_name_prefix="dumbwaiter-blobs")
#: Of one part of an upload: S3 takes 10,000 of at least 5 MiB. Two are on their way while a third one gathers.
_PART_NBYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 2
#: Where it is tried once in each process whether a service lets the first writer win.
_PROBES = "claims/probe-"
_NO_CREATE = (
    "{store} cannot let the first writer of an object win, and so would change answers that were given: {why}; "
    "use another service or a newer version of it (for S3, leave AWS_CONDITIONAL_PUT unset)"
)
#: Of check(): so long a request that failed is asked again (seconds), and so long one may take.
_CHECK_AGAIN_FOR, _CHECK_WITHIN = 5.0, "10s"
_in_memory: dict[str, MemoryStore] = {}
_in_memory_lock = threading.Lock()


class ObjectBlobStore(BlobStore):
    """What these services confirm is durable, so *durable* changes nothing here (and memory never is).

    The parts of an upload that was given up are no object, but a service keeps them until a rule of its bucket clears
    them away (for Amazon S3: AbortIncompleteMultipartUpload).
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = _open(url)
        self._lets_the_first_win = isinstance(self._store, MemoryStore)
        self._proving = threading.Lock()
        self._has_bucket = isinstance(self._store, MemoryStore)

    async def check(self) -> None:
        store = _open(self.url, retry_for=_CHECK_AGAIN_FOR, within=_CHECK_WITHIN)
        try:
            await _in_thread(partial(self._look, store))
        except (BaseError, OSError, _NoBucketError) as error:
            raise BlobError(f"cannot use the blob store {shown(self.url)}: {self._why(error)}") from error

    async def put(self, key: str, data: bytes, *, durable: bool = True) -> None:  # noqa: ARG002 - see the class
        with self._naming("write", key):
            await _in_thread(lambda: obstore.put(self._store, key, data))

    async def create(self, key: str, data: bytes) -> None:
        with self._naming("write", key):
            await _in_thread(partial(self._create, key, data))

    async def get(self, key: str) -> bytes:
        with self._naming("read", key):
            return await _in_thread(self._finding(lambda: bytes(obstore.get(self._store, key).bytes())))

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes], *, durable: bool = True) -> int:  # noqa: ARG002
        with self._naming("write", key):
            writer = await _in_thread(
                lambda: obstore.open_writer(self._store, key, buffer_size=_PART_NBYTES, max_concurrency=_PARTS_AT_ONCE)
            )
        nbytes = 0
        # A writer that is never closed makes no object.
        async for chunk in gathered(chunks, _PART_NBYTES):
            with self._naming("write", key):
                await _in_thread(partial(writer.write, chunk))
            nbytes += len(chunk)
        with self._naming("write", key):
            await _in_thread(writer.close)
        return nbytes

    async def stream(self, key: str, *, chunk_nbytes: int = CHUNK_NBYTES) -> AsyncIterator[bytes]:
        with self._naming("read", key):
            found = await _in_thread(self._finding(lambda: obstore.get(self._store, key)))
            chunks = iter(found.stream(min_chunk_size=chunk_nbytes))
        while True:
            with self._naming("read", key):
                chunk = await _in_thread(lambda: next(chunks, None))
            if chunk is None:
                return
            if len(chunk):
                yield bytes(chunk)

    async def exists(self, key: str) -> bool:
        try:
            await self.size(key)
        except BlobNotFoundError:
            return False
        return True

    async def size(self, key: str) -> int:
        with self._naming("read", key):
            return await _in_thread(self._finding(lambda: obstore.head(self._store, key)["size"]))

    async def version(self, key: str) -> str:
        with self._naming("read", key):
            found = await _in_thread(self._finding(lambda: obstore.head(self._store, key)))
        return f"{found['e_tag'] or found['last_modified'].isoformat()}-{found['size']}"

    async def list(self, prefix: str) -> list[str]:
        check_prefix(prefix)
        with self._listing(prefix):
            entries = await _in_thread(lambda: obstore.list(self._store, prefix or None).collect())
        return sorted(entry["path"] for entry in entries if _is_below(prefix, entry["path"]))

    async def scan(self, prefix: str) -> AsyncIterator[Sequence[BlobEntry]]:
        check_prefix(prefix)
        with self._listing(prefix):
            pages = await _in_thread(lambda: obstore.list(self._store, prefix or None, chunk_size=PAGE))
        while True:
            with self._listing(prefix):
                page = await _in_thread(lambda: next(pages, None))
            if page is None:
                return
            yield [
                BlobEntry(entry["path"], entry["size"], entry["last_modified"].timestamp())
                for entry in page
                if _is_below(prefix, entry["path"])
            ]

    async def delete(self, key: str) -> None:
        with self._naming("delete", key), contextlib.suppress(FileNotFoundError):
            await _in_thread(self._finding(lambda: obstore.delete(self._store, key)))

    async def copy(self, source: str, target: str) -> None:
        check_key(target)
        with self._naming("read", source):
            await _in_thread(self._finding(lambda: obstore.copy(self._store, source, target)))

    async def sign(self, method: Literal["GET", "PUT"], key: str, *, expires_in: float) -> str | None:
        store = self._store
        if isinstance(store, MemoryStore):
            return await super().sign(method, key, expires_in=expires_in)
        with self._naming("sign a URL of", key):
            # It may have to ask for credentials first.
            return await _in_thread(
                lambda: obstore.sign(cast(Any, store), method, key, expires_in=timedelta(seconds=expires_in))
            )

    async def remove_leftovers(self, *, before: float) -> int:  # noqa: ARG002 - see the class
        return 0

    def _create(self, key: str, data: bytes) -> None:
        with self._proving:
            if not self._lets_the_first_win:
                self._prove()
                self._lets_the_first_win = True
        obstore.put(self._store, key, data, mode="create")

    def _prove(self) -> None:
        """Raise BlobError where a second create replaces the first: some services take the condition and ignore it."""
        key = f"{_PROBES}{secrets.token_hex(8)}"
        with contextlib.suppress(AlreadyExistsError):
            obstore.put(self._store, key, b"", mode="create")
            obstore.put(self._store, key, b"", mode="create")
            raise BlobError(_NO_CREATE.format(store=shown(self.url), why="it ignores If-None-Match: *"))
        with contextlib.suppress(BaseError, OSError):  # swept with the claims then
            obstore.delete(self._store, key)

    def _finding(self, call: Callable[[], T]) -> Callable[[], T]:
        """*call*, whose FileNotFoundError means the object: that the bucket is missing is raised as another error."""

        def found() -> T:
            try:
                return call()
            except FileNotFoundError as error:
                code = error_code(error)
                if code in NO_BUCKET:
                    raise _NoBucketError(str(error)) from error
                # Once, because whoever waits for a result looks often, and buckets hardly ever go.
                if code not in NO_OBJECT and not self._has_bucket:
                    self._look(self._store)
                raise

        return found

    def _look(self, store: ObjectStore) -> None:
        """Ask *store* for one object; raises what it says against it."""
        next(obstore.list(store, chunk_size=1), None)
        self._has_bucket = True

    def _why(self, error: Exception) -> str:
        if isinstance(error, InvalidPathError):  # as one with // in it
            return f"{reason(error)}; an object of such a name hides all beside it: delete it"
        code = error_code(error)
        if code not in NO_BUCKET:
            return reason(error)
        return f"there is no such {BUCKETS[self.url.partition(':')[0]]} ({code}); make it, or mend its name"

    @contextlib.contextmanager
    def _listing(self, prefix: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, _NoBucketError) as error:
            raise BlobError(f"cannot list blobs below {prefix!r} in {shown(self.url)}: {self._why(error)}") from error

    @contextlib.contextmanager
    def _naming(self, verb: str, key: str) -> Iterator[None]:
        check_key(key)
        try:
            yield
        except FileNotFoundError as error:
            # A missing bucket is "not found" too: of what is written nothing else can be missing.
            if verb != "read":
                raise BlobError(f"cannot {verb} blob {key!r} in {shown(self.url)}: {self._why(error)}") from error
            raise BlobNotFoundError(key) from None
        except AlreadyExistsError:
            raise BlobExistsError(key) from None
        except NotImplementedError as error:
            raise BlobError(_NO_CREATE.format(store=shown(self.url), why=reason(error))) from error
        except (BaseError, OSError, _NoBucketError) as error:
            raise BlobError(f"cannot {verb} blob {key!r} in {shown(self.url)}: {self._why(error)}") from error


class _NoBucketError(Exception):
    """What a service said of a bucket that is not there. It is no OSError: of those "not found" means an object."""


def _is_below(prefix: str, name: str) -> bool:
    """Whether *name* is that of an object below *prefix*. A service's console makes "folders" too: objects whose names
    end in /, which obstore leaves out.
    """
    return name.startswith(prefix) and is_key(name)


async def _in_thread(call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_threads, call)


def _open(url: str, **times: Any) -> ObjectStore:
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        with _in_memory_lock:
            return _in_memory.setdefault(rest.strip("/"), MemoryStore())
    return connect(url, **times)
