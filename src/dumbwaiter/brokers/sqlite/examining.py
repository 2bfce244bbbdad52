"""What can be said of the place where the database lies."""

from __future__ import annotations

import os
from pathlib import Path

from dumbwaiter.brokers.findings import Finding
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.file_systems import file_system_of

IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
LITTLE_ROOM_NBYTES = 1024 * 1024 * 1024


def examine(path: Path) -> list[Finding]:
    """Findings about the database at *path*. Raises BrokerUnavailableError where they cannot be had."""
    try:
        kind = file_system_of(str(path.parent.resolve()), Path("/proc/self/mounts").read_text(errors="surrogateescape"))
        disk = os.statvfs(_existing(path))
    except OSError as error:
        raise BrokerUnavailableError(f"cannot look at the disk of {path}: {error.strerror}") from error
    return [
        _durability(path, kind),
        _room(path, disk.f_bavail * disk.f_frsize),
        Finding(level="note", subject="reach", text="one machine: processes on other machines need another broker"),
        Finding(level="note", subject="replication", text="none: the messages are as safe as this one disk"),
    ]


def examine_missing(path: Path) -> list[Finding]:
    """As examine(), of the place where there is no database yet. Raises BrokerUnavailableError where none can be."""
    place = _existing(path.absolute())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        reason = "this user may not write to" if place.is_dir() else "there is a file in the place of the folder"
        raise BrokerUnavailableError(
            f"cannot use the folder of {path}: {reason} {place}; choose one that this user may write to"
        )
    text = f"{path} is not there yet; the first `dumbwaiter serve` on it makes it, and its folder"
    return [Finding(level="note", subject="file", text=text), *examine(path)]


def _existing(path: Path) -> Path:
    """*path*, or the nearest of its folders that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def _durability(path: Path, kind: str) -> Finding:
    if kind in IN_MEMORY:
        text = f"{path} lies in memory ({kind}): its messages end with the machine"
        return Finding(level="danger", subject="durability", text=text, remedy="--broker sqlite:///a/path/on/a/disk.db")
    text = f"what was confirmed is synced to the disk of {path} ({kind}, journal_mode=WAL, synchronous=FULL)"
    return Finding(level="ok", subject="durability", text=text)


def _room(path: Path, nbytes: int) -> Finding:
    room = f"{nbytes / 1024**3:.1f} GiB are free on the disk of {path}"
    if nbytes >= LITTLE_ROOM_NBYTES:
        return Finding(level="ok", subject="room", text=room)
    text = f"{room}: when it is full, requests are refused (503) until there is room"
    return Finding(level="warning", subject="room", text=text, remedy="make room, or move the file to a larger disk")
