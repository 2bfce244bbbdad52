"""Folders: names in them that outlive the machine's fall, and whose they are."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the names in *folder* durable; a file's own sync does not. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_own(path: Path, found: os.stat_result) -> None:
    """Raises PermissionError unless *path*, of which *found* was found, is this user's, and no other may write there:
    what others write down in it would be read as this process's own word.
    """
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to user {found.st_uid}, and not to this one ({os.geteuid()})")
    if found.st_mode & 0o022:
        raise PermissionError(f"others may write to {path}; forbid it: chmod go-w {path}")
