"""Files as the kernel shows them, of a machine that is none."""

from __future__ import annotations


def machine(tmp_path, *, total, available, cgroup="0::/a/b\n", kind="cgroup2", options="rw"):
    """A folder like /proc, of a machine whose control groups lie in tmp_path/groups."""
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text(f"MemTotal:  {total} kB\nMemAvailable: {available} kB\nHugePages_Total: 0\n")
    (tmp_path / "self/cgroup").write_text(cgroup)
    (tmp_path / "self/mountinfo").write_text(f"1 0 0:1 / {tmp_path}/groups rw - {kind} cgroup {options}\n")
    (tmp_path / "groups/a/b").mkdir(parents=True)
    return tmp_path


def unified(folder, limit, current, inactive):
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")
