"""Weights from an object store, fetched once for all processes of a node that share a folder.

Whoever comes first holds a lock of the kernel's, which dies with its process, and the others wait for it. What is still
being fetched lies under another name, so that a file under its own name is whole; who comes after a process that died
reads on where it stopped, unless the machine was started anew since: then nobody knows what reached the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dumbwaiter.errors import ConfigError, ModelLoadError
from dumbwaiter.models.progress import Progress
from dumbwaiter.object_stores import connect, reason

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ObjectStore

UNFINISHED = ".tmp-"
_PIN = re.compile(r"sha256=([0-9a-f]{64})", re.IGNORECASE)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CHUNK_NBYTES = 1024 * 1024


class ChangedError(Exception):
    """What came is not what was asked for."""


def downloaded(uri: str, cache: Path) -> Path:
    """The file in *cache* that holds the object at *uri* (``s3://bucket/name``, with ``#sha256=HEX`` or without).

    A file of that digest is taken without a question to the store. Raises ModelLoadError: there is no such object, it
    cannot be fetched, or it has another digest.
    """
    from obstore.exceptions import BaseError  # noqa: PLC0415 - only where weights are remote

    address, pin = _read_uri(uri)
    name = address.rpartition("/")[2]
    if pin is not None and (path := cache / f"{pin[:16]}-{name}").exists():
        return path
    try:
        store = connect(address.rpartition("/")[0])
        found = _get(store, name)
        version = pin or hashlib.sha256(f"{address} {found.meta['e_tag']} {found.meta['size']}".encode()).hexdigest()
        path = cache / f"{version[:16]}-{name}"
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with _alone(path, uri):
                if not path.exists():  # another process may have fetched it meanwhile
                    _fetch(store, name, found, path, pin=pin, uri=uri)
    except FileNotFoundError:
        raise ModelLoadError(f"no weights at {uri}: there is no such object") from None
    except ChangedError as error:
        raise ModelLoadError(f"weights {uri} cannot be fetched: {error}") from None
    except (BaseError, OSError, ConfigError) as error:
        raise ModelLoadError(f"weights {uri} cannot be fetched: {reason(error)}") from error
    return path


def _read_uri(uri: str) -> tuple[str, str | None]:
    address, mark, fragment = uri.partition("#")
    if not mark:
        return uri, None
    pin = _PIN.fullmatch(fragment)
    if pin is None:
        raise ModelLoadError(f"cannot read weights from {uri!r}: after # stands sha256= and 64 hex digits, or nothing")
    return address, pin[1].lower()


@contextlib.contextmanager
def _alone(path: Path, uri: str) -> Iterator[None]:
    """Held by one process at a time for each *path*."""
    # It is never removed: one that is could be held under two names.
    with path.with_name(f".lock-{path.name}").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            Progress(uri).say("another process fetches it; waiting for that")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(store: ObjectStore, name: str, found: GetResult, path: Path, *, pin: str | None, uri: str) -> None:
    """Write the object to *path*, whole and with the digest *pin*, or raise; called by one at a time."""
    unfinished = path.with_name(f"{UNFINISHED}{_boot()}-{path.name}")
    for other in path.parent.glob(f"{UNFINISHED}*-{path.name}"):
        if other != unfinished:
            other.unlink(missing_ok=True)
    size = found.meta["size"]
    try:
        with unfinished.open("a+b") as file:
            digest = _receive(store, name, found, file, Progress(uri, size))
            _check(file.tell(), size, digest, pin)
            os.fsync(file.fileno())
        unfinished.replace(path)
    except (ChangedError, OSError):
        unfinished.unlink(missing_ok=True)  # a part of it would help nobody, and the disk may be full
        raise
    _sync(path.parent)


def _check(nbytes: int, size: int, digest: str, pin: str | None) -> None:
    if nbytes != size:
        raise ChangedError(f"{nbytes:,} bytes came, and it has {size:,}; start again")
    if pin is not None and digest != pin:
        raise ChangedError(f"its SHA-256 is {digest}; it was changed or damaged, or the URI is wrong")


def _receive(store: ObjectStore, name: str, found: GetResult, file: Any, progress: Progress) -> str:
    """Append what *file* lacks; the SHA-256 of all of it."""
    size, e_tag = found.meta["size"], found.meta["e_tag"]
    have = file.seek(0, os.SEEK_END)
    if have > size or e_tag is None:
        file.truncate(0)
        have = 0
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_NBYTES):
        digest.update(chunk)
    if have:
        progress.say(f"going on after {have:,} bytes that are there")
    if have < size:
        chunks = found if not have else _get(store, name, {"range": {"offset": have}, "if_match": e_tag})
        with progress.after(have):
            for chunk in chunks.stream(min_chunk_size=_CHUNK_NBYTES):
                file.write(chunk)
                digest.update(chunk)
                progress.show(file.tell())
    file.flush()
    return digest.hexdigest()


def _get(store: ObjectStore, name: str, options: Any = None) -> GetResult:
    import obstore  # noqa: PLC0415 - only where weights are remote
    from obstore.exceptions import PreconditionError  # noqa: PLC0415

    try:
        return obstore.get(store, name, options=options)
    except PreconditionError:
        raise ChangedError("it was replaced in this moment; start again") from None


def _boot() -> str:
    """What names this run of the machine; where it has no name, nobody reads on."""
    try:
        return _BOOT_ID.read_text().strip().replace("-", "")[:12]
    except OSError:
        return f"p{os.getpid()}"


def _sync(folder: Path) -> None:
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
