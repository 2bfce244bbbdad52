"""What Linux tells of memory: of the machine, of control groups, of processes.

Reading raises OSError where a file cannot be read, and DeviceError where it does not say what it should.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dumbwaiter.devices.contract import DeviceError

PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Machine(NamedTuple):
    """Bytes of all memory, and of what can still be had without swapping."""

    total: int
    available: int


class Group(NamedTuple):
    """A control group that has a limit: its folder, the limit, and what counts against it, in bytes.

    *used* leaves out file pages that were not touched of late, for they go before anything is refused.
    """

    folder: Path
    limit: int
    used: int


def machine_memory(proc: Path = PROC) -> Machine:
    """Memory of the machine, whatever control groups say."""
    found = kib_fields((proc / "meminfo").read_text(encoding="ascii"))
    return Machine(_field(found, "MemTotal", "/proc/meminfo"), _field(found, "MemAvailable", "/proc/meminfo"))


def limiting_groups(proc: Path = PROC) -> list[Group]:
    """The control groups around this process that limit its memory, the innermost first; none where nothing does."""
    text = (proc / "self/cgroup").read_text(encoding="utf-8", errors="surrogateescape")
    mounts = (proc / "self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    read = ((folder, _read_group(folder, version)) for folder, version in group_folders(text, mounts))
    # Version 1 writes "no limit" as the largest number of pages that there is.
    most = machine_memory(proc).total
    return [Group(folder, *found) for folder, found in read if found is not None and found[0] < most]


def group_folders(cgroup: str, mountinfo: str) -> list[tuple[Path, int]]:
    """Folders of the memory groups of a process, the innermost first, each with the version of its interface.

    *cgroup* and *mountinfo* are the texts of these files of the process in /proc. Pure. In a container the paths of the
    first may be those of the host, of which only what lies below the mount can be seen.
    """
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in cgroup.splitlines())}
    mounts = list(_group_mounts(mountinfo))
    for controllers, path in paths.items():
        if "memory" in controllers.split(","):
            return [(folder, 1) for folder in _folders(path, [m for m in mounts if "memory" in m.options])]
    unified = [mount for mount in mounts if mount.kind == "cgroup2"]
    return [(folder, 2) for folder in _folders(paths.get("", "/"), unified)]


class _Mount(NamedTuple):
    root: str
    point: str
    kind: str
    options: list[str]


def _group_mounts(mountinfo: str) -> Iterator[_Mount]:
    for line in mountinfo.splitlines():
        where, _, what = line.partition(" - ")
        fields, kinds = where.split(" "), what.split(" ")
        if len(fields) > 4 and len(kinds) > 2 and kinds[0] in {"cgroup", "cgroup2"}:
            yield _Mount(fields[3], fields[4], kinds[0], kinds[2].split(","))


def _folders(path: str, mounts: list[_Mount]) -> list[Path]:
    if not mounts:
        return []
    mount = mounts[-1]
    inside = path == mount.root or path.startswith(mount.root.rstrip("/") + "/")
    below = path[len(mount.root.rstrip("/")) :].strip("/") if inside and "/.." not in path else ""
    parts = below.split("/") if below else []
    return [Path(mount.point, *parts[:depth]) for depth in range(len(parts), -1, -1)]


_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def _read_group(folder: Path, version: int) -> tuple[int, int] | None:
    """Limit and use; None for a group that sets none."""
    limit_file, usage_file, inactive = _FILES[version]
    try:
        limit = (folder / limit_file).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None  # the outermost group has no limit, nor has one whose memory is not controlled
    if limit == "max":
        return None
    usage = int((folder / usage_file).read_text(encoding="ascii"))
    lines = (line.split(" ") for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    stat = {line[0]: int(line[1]) for line in lines if len(line) == 2}
    return int(limit), max(0, usage - _field(stat, inactive, str(folder / "memory.stat")))


def process_tree(root: int, proc: Path = PROC) -> list[int]:
    """Process ids of *root* and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in proc.iterdir():
        if entry.name.isdecimal() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    tree = [root]
    for pid in tree:
        tree += children.get(pid, ())
    return tree


def _parent(folder: Path) -> int | None:
    try:
        stat = (folder / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None  # it has just ended
    # The name stands in parentheses and may hold some itself.
    return int(stat.rpartition(b")")[2].split()[1])


def own_tree() -> list[int]:
    """Process ids of this process and its living descendants. Without any, which is usual, nothing is searched."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return [os.getpid()]
    return process_tree(os.getpid())


def proportional(pids: Sequence[int], proc: Path = PROC) -> int:
    """Bytes that these processes take, swapped ones too; what n processes share counts 1/n for each.

    The kernel goes through all their pages for it: some 20 ms for each GiB. One that has ended takes nothing.
    """
    return sum(_proportional(proc / str(pid)) for pid in pids)


def _proportional(folder: Path) -> int:
    try:
        found = kib_fields((folder / "smaps_rollup").read_text(encoding="ascii"))
    except ProcessLookupError:
        return 0  # it has ended, and nobody has asked yet how
    except FileNotFoundError:
        if folder.exists():
            raise  # this kernel has no such file
        return 0
    return found.get("Pss", 0) + found.get("SwapPss", 0)  # an empty file: it is about to end


def total_resident(pids: Sequence[int], proc: Path = PROC) -> int:
    """Bytes of these processes that are in memory, shared ones as often as they are shared. Some microseconds each."""
    return sum(_resident(proc / str(pid) / "statm") for pid in pids)


def _resident(statm: Path) -> int:
    try:
        return int(statm.read_bytes().split()[1]) * _PAGE
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has just ended


def resident(proc: Path = PROC) -> tuple[int, int]:
    """Bytes of this process that are in memory, and the most that were since its peak was reset."""
    found = kib_fields((proc / "self/status").read_text(encoding="utf-8", errors="replace"))
    return _field(found, "VmRSS", "/proc/self/status"), _field(found, "VmHWM", "/proc/self/status")


def reset_resident_peak(proc: Path = PROC) -> None:
    """The peak of resident() is what it is now. Source: proc_pid_clear_refs(5)."""
    (proc / "self/clear_refs").write_text("5", encoding="ascii")


def kib_fields(text: str) -> dict[str, int]:
    """Bytes by name, of the lines ``Name:  123 kB``; other lines are passed over. Pure."""
    words = (line.split() for line in text.splitlines())
    return {word[0].removesuffix(":"): int(word[1]) * 1024 for word in words if len(word) == 3 and word[2] == "kB"}


def _field(found: Mapping[str, int], name: str, where: str) -> int:
    if name not in found:
        raise DeviceError(f"{where} does not tell {name}; declare the memory to use instead: host:8GiB")
    return found[name]
