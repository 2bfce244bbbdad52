"""A tree of settings as TOML that people can read: tables under their names, everything else a line. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dumbwaiter.config.toml_text import key, quoted


def document(tree: Mapping[str, Any]) -> str:
    """*tree* as a document that tomllib reads as the same tree. Tables in lists are written inline."""
    return "\n".join(_lines(tree, ())).strip("\n") + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    plain = {name: value for name, value in table.items() if not isinstance(value, Mapping)}
    tables = {name: value for name, value in table.items() if isinstance(value, Mapping)}
    lines = [f"{key(name)} = {_value(value)}" for name, value in plain.items()]
    if path and (lines or not tables):
        lines = ["", f"[{'.'.join(map(key, path))}]", *lines]
    for name, inner in tables.items():
        lines += _lines(inner, (*path, name))
    return lines


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key(name)} = {_value(one)}" for name, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return str(value)  # numbers, dates and times, which TOML writes as Python does


def _number(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return str(value)
    text = repr(value)
    return text if "." in text or "e" in text else f"{text}.0"
