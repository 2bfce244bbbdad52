"""Where the database lies: its URL, whether that place can be shared safely, and where wake-up sockets go."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from urllib.parse import unquote

import apsw

from dumbwaiter.errors import BrokerUnavailableError, ConfigError
from dumbwaiter.file_systems import NETWORK_FILE_SYSTEMS, file_system_of
from dumbwaiter.urls import shown

#: sizeof(sockaddr_un.sun_path) on Linux, less the closing zero.
MAX_SOCKET_PATH_NBYTES = 107

_SOCKET_NAME_NBYTES = len("/4194304-0123456789abcdef")


def path_of(url: str) -> Path:
    """The file that *url* names: ``sqlite:relative/path.db`` or ``sqlite:///absolute/path.db``.

    Raises ConfigError for any other form.
    """
    rest = url.removeprefix("sqlite:")
    if rest.startswith("//"):
        if not rest.startswith("///"):
            raise ConfigError(
                f"{shown(url)!r} names a host; write sqlite:relative/path.db or sqlite:///absolute/path.db"
            )
        rest = rest[2:]
    path = unquote(rest)
    if not path or path.endswith("/") or path == ":memory:":
        raise ConfigError(f"{url!r} names no file; write sqlite:path.db, or memory: for a broker without a file")
    return Path(path)


def refuse_network_file_system(path: Path, mounts: str) -> None:
    """Raise BrokerUnavailableError when *path* lies on a file system that several machines may share."""
    kind = file_system_of(str(path.parent.resolve()), mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        raise BrokerUnavailableError(
            f"{path} lies on a network file system ({kind}), where SQLite loses data; "
            "put the file on a local disk, or use a network broker"
        )


def prepare_folder(path: Path) -> None:
    """Create the folder of *path* and check that its file system can be shared by processes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise BrokerUnavailableError(
            f"cannot use the folder of {path}: {error.strerror}; choose one that this user may write to"
        ) from error
    refuse_network_file_system(path, mounts)


class FileReplacedError(OSError):
    """The database was deleted, or another file took its name, while this process had it open."""


class OpenFile:
    """The file at *path*, which this process has open, to be told from any other that may lie there later.

    *damage* is the first error that said its content is damaged; None as long as none did.
    """

    def __init__(self, path: Path) -> None:
        self.damage: Exception | None = None
        self._path = path
        self._status = path.stat()

    def check(self) -> None:
        """Raise FileReplacedError unless the open file still has its name; costs some microseconds."""
        try:
            is_same = os.path.samestat(self._status, self._path.stat())
        except (FileNotFoundError, NotADirectoryError):
            is_same = False
        if not is_same:
            raise FileReplacedError("the file was deleted or replaced under us")

    def note(self, error: Exception) -> None:
        """Remember *error* if it says that the content is damaged. What lies on other pages can still be had."""
        if self.damage is None and isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
            self.damage = error.with_traceback(None)


def socket_folder(path: Path) -> Path:
    """The existing folder for wake-up sockets: beside the database, or a short one when that path would be too long."""
    beside = Path(f"{path.resolve()}-wake")
    if len(os.fsencode(beside)) + _SOCKET_NAME_NBYTES <= MAX_SOCKET_PATH_NBYTES:
        beside.mkdir(exist_ok=True)
        return beside
    root = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    short = root / f"dumbwaiter-wake-{os.getuid()}"
    if len(os.fsencode(short)) + _SOCKET_NAME_NBYTES > MAX_SOCKET_PATH_NBYTES:
        short = Path(f"/tmp/dumbwaiter-wake-{os.getuid()}")  # noqa: S108 - owner and mode are checked below
    short.mkdir(mode=0o700, exist_ok=True)
    if short.stat().st_uid != os.getuid():
        raise BrokerUnavailableError(f"{short} belongs to another user; remove it, or set XDG_RUNTIME_DIR")
    return short
