"""Weights from an object store, fetched once for all processes of a node that share a folder.

Whoever comes first holds a lock of the kernel's, which dies with its process, and the others wait for it. What is still
being fetched lies under another name, so that a file under its own name is whole; who comes after a process that died
reads on where it stopped, unless the machine was started anew since: then nobody knows what reached the disk. Where the
store gives no parts of objects it takes all of it anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dumbwaiter.boot import boot_id
from dumbwaiter.errors import ConfigError, ModelLoadError
from dumbwaiter.folders import sync_folder
from dumbwaiter.models.progress import Progress
from dumbwaiter.object_stores import connect, reason
from dumbwaiter.printable import printable
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ObjectStore

UNFINISHED = ".tmp-"
_PIN = re.compile(r"sha256=([0-9a-f]{64})", re.IGNORECASE)
#: How obstore says that an answer is not the part that was asked for; by its type it is any other error.
_NO_PART = re.compile(
    r"Generic \w+ error: (Received non-partial response|Content-Range header|Requested \d+\.\.\d+, got|"
    r"Failed to parse value for CONTENT_RANGE)|status code: 416 "
)
_CHUNK_NBYTES = 1024 * 1024
_REPLACED = "it was replaced in this moment; start again"
_NAME_NBYTES = 100
"""A file system takes 255 bytes, and a digest stands before the name."""


class ChangedError(Exception):
    """What came is not what was asked for."""


def downloaded(uri: str, cache: Path) -> Path:
    """The file in *cache* that holds the object at *uri* (``s3://bucket/name``, with ``#sha256=HEX`` or without).

    A file of that digest is taken without a question to the store. Raises ModelLoadError: there is no such object, it
    cannot be fetched, or it has another digest. What may be secret in *uri* is told to nobody.
    """
    from obstore.exceptions import BaseError  # noqa: PLC0415 - only where weights are remote

    where = printable(shown(uri))
    address, pin = _read_uri(uri)
    try:
        return _downloaded(address, pin, cache, where)
    except FileNotFoundError:
        raise ModelLoadError(f"no weights at {where}: there is no such object") from None
    except ChangedError as error:
        raise ModelLoadError(f"weights {where} cannot be fetched: {error}") from None
    except (BaseError, OSError, ValueError, ConfigError) as error:
        # Not as the cause: its text may quote the address.
        why = printable(reason(error).replace(address, shown(address)))
        raise ModelLoadError(f"weights {where} cannot be fetched: {why}") from None


def _downloaded(address: str, pin: str | None, cache: Path, where: str) -> Path:
    name = address.rpartition("/")[2]
    if pin is not None and _is_there(path := _place(cache, pin, name), pin):
        return path
    store = connect(address.rpartition("/")[0])
    found = _get(store, name)
    version = pin or hashlib.sha256(f"{address} {found.meta['e_tag']} {found.meta['size']}".encode()).hexdigest()
    path = _place(cache, version, name)
    if not _is_there(path, pin):
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(path, where):
            if not _is_there(path, pin):  # another process may have fetched it meanwhile
                _fetch(store, name, found, path, pin=pin, where=where)
    return path


def _place(cache: Path, version: str, name: str) -> Path:
    """The whole digest, for a part of one could be another's; and the end of the name, which says what kind it is."""
    return cache / f"{version}-{os.fsdecode(os.fsencode(name)[-_NAME_NBYTES:])}"


def _is_there(path: Path, pin: str | None) -> bool:
    """Whether the file is there, and is what *pin* says. Reading all of it takes long, so that is done again only when
    it was touched since.
    """
    try:
        now = path.stat()
    except FileNotFoundError:
        return False
    if pin is None:
        return True
    seen = f"{now.st_ino} {now.st_size} {now.st_mtime_ns} {now.st_ctime_ns}"
    checked = path.with_name(f".checked-{path.name}")
    with contextlib.suppress(OSError, ValueError):
        if checked.read_text() == seen:
            return True
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != pin:
            return False
    with contextlib.suppress(OSError):  # a cache that may not be written is read each time
        checked.write_text(seen)
    return True


def _read_uri(uri: str) -> tuple[str, str | None]:
    address, mark, fragment = uri.partition("#")
    if "?" in address:
        # A signature, most likely: it would be taken for a part of the name, and quoted in errors.
        rule = "write it without ?; credentials come from the environment"
        raise ModelLoadError(f"cannot read weights from {printable(shown(uri))!r}: {rule}")
    if not mark:
        return uri, None
    pin = _PIN.fullmatch(fragment)
    if pin is None:
        raise ModelLoadError(
            f"cannot read weights from {shown(uri)!r}: after # stands sha256= and 64 hex digits, or nothing"
        )
    return address, pin[1].lower()


@contextlib.contextmanager
def _alone(path: Path, where: str) -> Iterator[None]:
    """Held by one process at a time for each *path*."""
    # It is never removed: one that is could be held under two names.
    with path.with_name(f".lock-{path.name}").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            Progress(where).say("another process fetches it; waiting for that")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(store: ObjectStore, name: str, found: GetResult, path: Path, *, pin: str | None, where: str) -> None:
    """Write the object to *path*, whole and with the digest *pin*, or raise; called by one at a time."""
    unfinished = path.with_name(f"{UNFINISHED}{_boot()}-{path.name}")
    for other in path.parent.glob(f"{UNFINISHED}*-{glob.escape(path.name)}"):
        if other != unfinished:
            other.unlink(missing_ok=True)
    size = found.meta["size"]
    try:
        with unfinished.open("a+b") as file:
            digest = _receive(store, name, found, file, Progress(where, size))
            _check(file.tell(), size, digest, pin)
            os.fsync(file.fileno())
        unfinished.replace(path)
    except (ChangedError, OSError):
        unfinished.unlink(missing_ok=True)  # a part of it would help nobody, and the disk may be full
        raise
    sync_folder(path.parent)


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
        chunks = _rest(store, name, have, e_tag) if have else found
        if chunks is None:
            progress.say("its store gives no part of it; fetching all of it again")
            chunks = _whole(store, name, e_tag)
            file.truncate(0)
            digest, have = hashlib.sha256(), 0
        with progress.after(have):
            for chunk in chunks.stream(min_chunk_size=_CHUNK_NBYTES):
                file.write(chunk)
                digest.update(chunk)
                progress.show(file.tell())
    file.flush()
    return digest.hexdigest()


def _rest(store: ObjectStore, name: str, have: int, e_tag: str | None) -> GetResult | None:
    """What comes after the first *have* bytes; None where the store gives no parts of it."""
    from obstore.exceptions import BaseError  # noqa: PLC0415 - only where weights are remote

    try:
        return _get(store, name, {"range": {"offset": have}, "if_match": e_tag})
    except BaseError as error:
        if _NO_PART.search(str(error)) is None:
            raise
        return None


def _whole(store: ObjectStore, name: str, e_tag: str | None) -> GetResult:
    """All of it, anew: the first answer has waited while the part was read, and its connection may be gone."""
    whole = _get(store, name, {"if_match": e_tag})
    if whole.meta["e_tag"] != e_tag:  # who does not know ranges may not know conditions either
        raise ChangedError(_REPLACED)
    return whole


def _get(store: ObjectStore, name: str, options: Any = None) -> GetResult:
    import obstore  # noqa: PLC0415 - only where weights are remote
    from obstore.exceptions import PreconditionError  # noqa: PLC0415

    try:
        return obstore.get(store, name, options=options)
    except PreconditionError:
        raise ChangedError(_REPLACED) from None


def _boot() -> str:
    """What names this run of the machine; where it has no name, nobody reads on."""
    try:
        return boot_id().replace("-", "")[:12]
    except OSError:
        return f"p{os.getpid()}"
