"""The local store's files, one that is being written and one that is being read, and the folder of them all.

For threads, several at a time.

Both files may be given up by a cancelled call while a thread is still at work on them: whoever gives up waits for that
step, and steps that come later do nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
import weakref
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from dumbwaiter.blobs.keys import UNFINISHED_PREFIX
from dumbwaiter.folders import sync_folder

_PRIVATE, _SHARED = 0o600, 0o666  # less the umask
_FOLDER_TRIES = 5


class Root:
    """The folder at *path*: once it is there it must stay the same, or what is in it would seem never to have been."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise OSError when the folder is gone or another one by now, or no folder; none was there ever is no error.

        It costs some microseconds.
        """
        with self._lock:
            if self._descriptor is None:
                self._open()
                return
            try:
                is_same = os.path.samestat(os.fstat(self._descriptor), self._path.stat())
            except (FileNotFoundError, NotADirectoryError):
                is_same = False
        if not is_same:
            said = "the folder was taken away or replaced under us; put it back, or restart the processes that use it"
            raise OSError(errno.ESTALE, said)

    def _open(self) -> None:
        # Held open, for the number of a folder that is gone may be given to the next one.
        try:
            self._descriptor = os.open(self._path, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        weakref.finalize(self, os.close, self._descriptor)


class Unfinished:
    """A file in the folder of *path*, gone after discard() unless it was moved there. *private*: its owner's only."""

    def __init__(self, path: Path, *, private: bool = False) -> None:
        self._path = path
        self._mode = _PRIVATE if private else _SHARED
        self._beside = path.parent / f"{UNFINISHED_PREFIX}{secrets.token_hex(8)}"
        self._file: FileIO | None = None
        self._given_up = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def open(self) -> None:
        """Make the folder and the file."""
        with self._lock:
            if not self._given_up:
                self._file = self._opened()

    def append(self, data: bytes) -> None:
        """Write *data* behind what is there."""
        with self._lock:
            rest = memoryview(data)
            while rest and self._file is not None:
                rest = rest[self._file.write(rest) :]

    def finish(self, *, durable: bool) -> None:
        """Move it into its place, over what is there."""
        with self._lock:
            if self._file is not None:
                self._close(durable=durable)
                self._beside.replace(self._path)
                if durable:
                    sync_folder(self._path.parent)

    def finish_if_absent(self) -> None:
        """Durably move it into its place; FileExistsError when there is one, which is durable then too."""
        with self._lock:
            if self._file is None:
                return
            self._close(durable=True)
            try:
                self._path.hardlink_to(self._beside)
            finally:
                # Also for a loser: the winner may not have synced the folder yet, but our caller relies on its object.
                sync_folder(self._path.parent)

    def discard(self) -> None:
        """Remove what was not moved."""
        with self._lock:
            self._given_up = True
            if self._file is not None:
                self._close(durable=False)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._beside.unlink()

    def _opened(self) -> FileIO:
        for tries_left in reversed(range(_FOLDER_TRIES)):
            try:
                make_folder(self._path.parent)
                return FileIO(self._beside, "xb", opener=lambda name, flags: os.open(name, flags, self._mode))
            except FileNotFoundError:
                # remove_leftovers() took the empty folder away in the same moment.
                if not tries_left:
                    raise
        raise AssertionError

    def _close(self, *, durable: bool) -> None:
        file, self._file = self._file, None
        if file is not None:
            with file:
                if durable:
                    os.fsync(file.fileno())


class Opened:
    """The file at *path*, opened when first read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._given_up = False
        self._lock = threading.Lock()

    def read(self, nbytes: int) -> bytes:
        """The next bytes, at most *nbytes*; none at the end."""
        with self._lock:
            if self._given_up:
                return b""
            if self._file is None:
                self._file = FileIO(self._path)
            return self._file.read(nbytes)

    def close(self) -> None:
        """Read no more."""
        with self._lock:
            self._given_up = True
            if self._file is not None:
                self._file.close()


def make_folder(folder: Path) -> None:
    """Make *folder* and those above it; their names are durable."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    # Also for an object that need not be durable: the next one in this folder may.
    sync_folder(folder.parent)
