"""Objects as YAML that people read: keys in the order in which they were made, with the reasons above them. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Path = tuple[str | int, ...]
Notes = Mapping[Path, str]
_NOTE_WIDTH = 110


class Raw(str):
    """Text that stands in the document as it is: what a template engine replaces."""

    __slots__ = ()


def document(value: Any, notes: Notes | None = None) -> str:
    """*value* as a YAML document that reads as the same; *notes* are put above what lies at their paths."""
    return "\n".join(_block(value, (), notes or {}, "")) + "\n"


def _block(value: Any, path: Path, notes: Notes, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _member(f"{_scalar(str(key))}:", inner, (*path, key), notes, indent)
    else:
        for number, inner in enumerate(value):
            yield from _item(inner, (*path, number), notes, indent)


def _member(head: str, value: Any, path: Path, notes: Notes, indent: str) -> Iterator[str]:
    yield from _note(path, notes, indent)
    if _is_nested(value):
        yield f"{indent}{head}"
        yield from _block(value, path, notes, indent + ("  " if isinstance(value, Mapping) else ""))
    elif isinstance(value, str) and not isinstance(value, Raw) and _is_long_text(value):
        yield f"{indent}{head} |"
        yield from (f"{indent}  {line}".rstrip() for line in value.removesuffix("\n").split("\n"))
    else:
        yield f"{indent}{head} {_scalar(value)}"


def _item(value: Any, path: Path, notes: Notes, indent: str) -> Iterator[str]:
    yield from _note(path, notes, indent)
    if not _is_nested(value):
        yield f"{indent}- {_scalar(value)}"
        return
    first, *rest = _block(value, path, notes, f"{indent}  ")
    while first.lstrip().startswith("#"):  # a note on its first member stands above it
        yield first.replace("  #", "#", 1) if first.startswith(f"{indent}  #") else first
        first, *rest = rest
    yield f"{indent}- {first[len(indent) + 2 :]}"
    yield from rest


def _note(path: Path, notes: Notes, indent: str) -> Iterator[str]:
    if path in notes:
        width = _NOTE_WIDTH - len(indent)
        yield from (f"{indent}# {line}" for line in textwrap.wrap(notes[path], width))


def _is_nested(value: Any) -> bool:
    is_collection = isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str))
    return is_collection and len(value) > 0


def _is_long_text(text: str) -> bool:
    """Whether a literal block says *text* exactly: with one line break at the end, and no space that would be lost."""
    lines = text.split("\n")
    if len(lines) < 3 or lines[-1] or not lines[-2]:
        return False
    plain = all(line.isprintable() and line == line.rstrip() for line in lines)
    return plain and not lines[0].startswith(" ") and bool(lines[0])


def _scalar(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, list | tuple):
        return "[]"
    from dumbwaiter.deploy.yaml_library import scalar  # noqa: PLC0415 - only an extra has it

    return scalar(value)
