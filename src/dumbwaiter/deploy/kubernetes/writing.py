"""Files of a rendering in a folder: ours are renewed, those of others and what was edited by hand are left alone.

Each file of ours begins with a mark and a digest of what follows, so that an edit is seen.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from dumbwaiter.errors import ConfigError

_MARK = re.compile(r"(?:# |<!-- |\{\{- /\* )rendered by dumbwaiter deploy, (?P<digest>[0-9a-f]{12})(?:\.[^\n]*)?\n")
_HEAD = 200
"""Bytes in which a mark ends."""
_WORDS = "Once edited by hand, it is not renewed."


class Change(NamedTuple):
    """What happened, or would happen, to a file: ``new``, ``changed``, ``same`` or ``gone``."""

    file: str
    kind: str


def marked(name: str, text: str) -> str:
    """*text* as it is written into the file *name*."""
    begin, end = _comment(name)
    return f"{begin}rendered by dumbwaiter deploy, {_digest(text)}. {_WORDS}{end}\n{text}"


def write(folder: Path, files: Mapping[str, str], *, check: bool = False) -> list[Change]:
    """Make *folder* hold *files*, by name, and none that an earlier rendering left. With *check* nothing is written.

    Raises ConfigError, and writes nothing, where a file is in the way that is not ours or was edited.
    """
    wanted = {name: marked(name, text) for name, text in files.items()}
    there = _texts(folder, wanted.keys())
    foreign = sorted(name for name in wanted.keys() & there.keys() if not _is_ours(there[name]))
    if foreign:
        raise ConfigError(
            f"{folder} has files that are not as dumbwaiter rendered them: {', '.join(foreign)}; move them away, or"
            " name another folder with --output"
        )
    stale = {name for name, text in there.items() if name not in wanted and _is_ours(text)}
    changes = [Change(name, _kind(there.get(name), text)) for name, text in wanted.items()]
    changes += [Change(name, "gone") for name in sorted(stale)]
    if not check:
        for name, text in wanted.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for name in stale:
            (folder / name).unlink()
    return changes


def _texts(folder: Path, wanted: Collection[str]) -> dict[str, str]:
    """The files below *folder* that are *wanted* or begin like ours; one that is no text counts as somebody else's."""
    if not folder.is_dir():
        return {}
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: path.read_text(encoding="utf-8", errors="replace")
        for name, path in paths.items()
        if name in wanted or _begins_like_ours(path)
    }


def _begins_like_ours(path: Path) -> bool:
    """A look at its first bytes: what else lies there may be large."""
    with path.open("rb") as file:
        return _MARK.match(file.read(_HEAD).decode(errors="replace")) is not None


def _is_ours(text: str) -> bool:
    found = _MARK.match(text)
    return found is not None and found["digest"] == _digest(text[found.end() :])


def _kind(before: str | None, after: str) -> str:
    if before is None:
        return "new"
    return "same" if before == after else "changed"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _comment(name: str) -> tuple[str, str]:
    """How the file *name* says what is not for machines."""
    if name.startswith("templates/"):
        return "{{- /* ", " */}}"
    return ("<!-- ", " -->") if name.endswith(".md") else ("# ", "")
