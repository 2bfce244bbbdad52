"""Files of a rendering in a folder: ours are renewed, those of others and what was edited by hand are left alone.

Each file of ours begins with a mark and a digest of what follows, so that an edit is seen. They are written beside
their places first and put there when all are whole: of a disk that is full nothing in them can be seen.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
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

    Raises ConfigError, and writes nothing, where anything is in the way that is not ours or was edited, or where there
    is no room; and where the folder cannot be read or written.
    """
    wanted = {name: marked(name, text) for name, text in files.items()}
    try:
        there = _texts(folder, wanted.keys())
        foreign = sorted({found for name in wanted if (found := _in_the_way(folder, name, there))})
    except OSError as error:
        raise ConfigError(f"{error.filename or folder} cannot be read: {error.strerror}") from None
    if foreign:
        raise ConfigError(
            f"{folder} has what is not as dumbwaiter rendered it: {', '.join(foreign)}; move that away, or"
            " name another folder with --output"
        )
    stale = {name for name, text in there.items() if name not in wanted and _is_ours(text)}
    changes = [Change(name, _kind(there.get(name), text)) for name, text in wanted.items()]
    changes += [Change(name, "gone") for name in sorted(stale)]
    if not check and any(change.kind != "same" for change in changes):
        _put(folder, {name: text for name, text in wanted.items() if there.get(name) != text}, stale)
    return changes


def _put(folder: Path, texts: Mapping[str, str], stale: Collection[str]) -> None:
    """Put *texts* into the files of *folder* once all are written, and remove *stale* ones."""
    place = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".rendering-", dir=folder) as fresh:
            written = {name: Path(fresh, str(number)) for number, name in enumerate(texts)}
            for name, text in texts.items():
                place = folder / name
                written[name].write_text(text, encoding="utf-8")
            for name in texts:
                place = folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                if place.exists():
                    shutil.copymode(place, written[name])
                written[name].replace(place)
        for name in stale:
            place = folder / name
            place.unlink()
    except OSError as error:
        raise ConfigError(f"{place} cannot be written: {error.strerror}") from None


def has_rendering(folder: Path) -> bool:
    """Whether *folder* is one that has a file of ours, edited by hand or not."""
    return folder.is_dir() and any(path.is_file() and _begins_like_ours(path) for path in folder.iterdir())


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


def _in_the_way(folder: Path, name: str, there: Mapping[str, str]) -> str | None:
    """What is at the place of the file *name*, or of a folder on the way to it, and is not ours: a link is not."""
    *above, _ = map(str, PurePosixPath(name).parents)
    for one in reversed(above):
        if os.path.lexists(folder / one) and ((folder / one).is_symlink() or not (folder / one).is_dir()):
            return one
    path = folder / name
    is_free = not os.path.lexists(path) or (not path.is_symlink() and _is_ours(there.get(name, "")))
    return None if is_free else name


def _begins_like_ours(path: Path) -> bool:
    """A look at its first bytes: what else lies there may be large. What we may not read is somebody else's."""
    try:
        with path.open("rb") as file:
            return _MARK.match(file.read(_HEAD).decode(errors="replace")) is not None
    except PermissionError:
        return False


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
