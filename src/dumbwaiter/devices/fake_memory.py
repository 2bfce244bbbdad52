"""The memory of a fake device: a folder that several processes share, and that holds them to its capacity.

Whether a process lives is told by a lock of the kernel's on a file of its own, so processes in other containers count
as well. What a dead one had stays in use for a while, as with a driver that still clears up: counted from the moment at
which somebody first looks, for nobody stands by when a process is killed.

All is in one small file that is replaced as a whole, under a lock: a process killed at any moment leaves no half of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
import weakref
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from dumbwaiter.devices.contract import DeviceError
from dumbwaiter.errors import ConfigError


class Share(msgspec.Struct):
    """What one process has: bytes, and once it was seen dead the monotonic time at which they come back."""

    nbytes: int = 0
    back_at: float | None = None


class Memory(msgspec.Struct):
    """Who has what of *capacity* bytes, and what happened so far. Pure; times are seconds of one monotonic clock."""

    capacity: int
    shares: dict[str, Share] = {}
    numbers: int = 0
    leaked: int = 0
    most_used: int = 0
    refused: int = 0

    @property
    def used(self) -> int:
        """Bytes in use, those of dead processes and leaked ones too."""
        return self.leaked + sum(share.nbytes for share in self.shares.values())

    def join(self) -> str:
        """The name of a new process's share; no name is given twice."""
        self.numbers += 1
        self.shares[str(self.numbers)] = Share()
        return str(self.numbers)

    def take(self, name: str, nbytes: int) -> bool:
        """Whether there was room for *nbytes* more, and *name* has them now."""
        if self.used + nbytes > self.capacity:
            return False
        self.shares[name].nbytes += nbytes
        self.most_used = max(self.most_used, self.used)
        return True

    def give(self, name: str, nbytes: int) -> None:
        """*name* has *nbytes* less, from now on."""
        self.shares[name].nbytes -= nbytes

    def leak(self, name: str, nbytes: int) -> None:
        """What *name* has becomes memory that never comes back."""
        self.give(name, nbytes)
        self.leaked += nbytes

    def bury(self, dead: Collection[str], now: float, frees_after: float) -> bool:
        """Shares of the *dead* come back *frees_after* seconds from now, or never if that is infinite; those whose time
        has come are gone. Whether any went.
        """
        count = len(self.shares)
        for name in dead:
            share = self.shares[name]
            if frees_after == float("inf"):
                self.leak(name, share.nbytes)
            elif share.back_at is None:
                share.back_at = now + frees_after
        kept = {name: share for name, share in self.shares.items() if share.back_at is None or share.back_at > now}
        self.shares = {name: share for name, share in kept.items() if share.nbytes or name not in dead}
        return len(self.shares) < count


class SharedMemory:
    """The memory in *folder*, as one process sees it; join() makes it one that can have a share.

    Raises DeviceError when the folder cannot be used, ConfigError when it is a device of another capacity.
    """

    def __init__(self, folder: Path, capacity: int, *, frees_after: float) -> None:
        self.folder = folder
        self._frees_after = frees_after
        self._state = folder / "memory.json"
        self._among_threads = threading.Lock()
        self._lock = self._life = -1
        self._name: str | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DeviceError(
                f"cannot keep a fake device in {folder}: {error.strerror}; choose another path"
            ) from error
        _open.add(self)
        try:
            self._found(capacity)
        except BaseException:
            self.close()
            raise

    def _found(self, capacity: int) -> None:
        with self._turn(Memory(capacity)) as memory:
            if memory.capacity != capacity:
                raise ConfigError(
                    f"the fake device in {self.folder} has {memory.capacity} bytes, not {capacity}; name that capacity,"
                    " or remove the folder"
                )

    def join(self) -> None:
        """Have a share from now on, until this process ends or close() is called."""
        if self._name is None:
            with self._turn() as memory:
                self._name = memory.join()
                self._life = os.open(self._life_of(self._name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._life, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def look(self) -> Memory:
        """How things stand now."""
        with self._turn() as memory:
            return memory

    def take(self, nbytes: int) -> bool:
        """Whether there was room for *nbytes* more, which this process has now. A refusal is counted."""
        with self._turn() as memory:
            taken = memory.take(self._own(memory), nbytes)
            memory.refused += not taken
            return taken

    def give(self, nbytes: int) -> None:
        """Have *nbytes* less: others can have them at once."""
        with self._turn() as memory:
            memory.give(self._own(memory), nbytes)

    def leak(self, nbytes: int) -> None:
        """Of what this process has, *nbytes* never come back."""
        with self._turn() as memory:
            memory.leak(self._own(memory), nbytes)

    def close(self) -> None:
        """Leave: what this process has is treated as a dead one's. Closing twice is no error."""
        lock, life = self._lock, self._life
        self._lock = self._life = -1
        for fd in (life, lock):
            if fd >= 0:
                os.close(fd)

    def _own(self, memory: Memory) -> str:
        if self._name is None or self._life < 0 or self._name not in memory.shares:
            raise DeviceError(f"this process has no share of the fake device in {self.folder}; open it here first")
        return self._name

    def _life_of(self, name: str) -> Path:
        return self.folder / f"process-{name}"

    @contextlib.contextmanager
    def _turn(self, new: Memory | None = None) -> Iterator[Memory]:
        """The memory, for this thread of this process alone; what was changed is kept unless an exception leaves."""
        if self._lock < 0:
            raise DeviceError(f"the fake device in {self.folder} was closed, or opened before a fork; open it anew")
        with self._among_threads:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                memory, before = self._read(new)
                dead = [name for name in memory.shares if name != self._name and self._is_dead(name)]
                if memory.bury(dead, time.monotonic(), self._frees_after):
                    self._remove_all_but(memory.shares)
                yield memory
                if (after := msgspec.json.encode(memory)) != before:
                    self._write(after)
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _read(self, new: Memory | None) -> tuple[Memory, bytes]:
        try:
            content = self._state.read_bytes()
            return msgspec.json.decode(content, type=Memory), content
        except FileNotFoundError:
            if new is None:
                raise DeviceError(f"the fake device in {self.folder} is gone; was the folder removed?") from None
            return new, b""
        except msgspec.MsgspecError as error:
            raise DeviceError(f"{self._state} is no fake device's memory: {error}; choose another path") from error

    def _write(self, content: bytes) -> None:
        beside = self._state.with_suffix(".new")
        beside.write_bytes(content)
        beside.replace(self._state)

    def _remove_all_but(self, names: Collection[str]) -> None:
        for path in self.folder.glob("process-*"):
            if path.name.removeprefix("process-") not in names:
                path.unlink()

    def _is_dead(self, name: str) -> bool:
        fd = os.open(self._life_of(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True


#: Who inherits an open file holds its locks: a forked child must not keep its parent alive.
_open: weakref.WeakSet[SharedMemory] = weakref.WeakSet()


def _close_all() -> None:
    for memory in list(_open):
        memory.close()


os.register_at_fork(after_in_child=_close_all)
