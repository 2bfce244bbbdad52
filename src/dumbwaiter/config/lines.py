"""On which line of a TOML file a key stands, which tomllib does not tell."""

from __future__ import annotations

import re

Keys = tuple[str, ...]

_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"


def lines_of(text: str) -> dict[Keys, int]:
    """The line on which each key of a valid TOML *text* stands. (tomllib does not tell.)"""
    lines: dict[Keys, int] = {}
    table: Keys = ()
    quotes = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not quotes:
            if header := re.match(rf"\s*\[+\s*({_DOTTED})\s*\]", line):
                table = _split_key(header[1])
                lines.setdefault(table, number)
            elif pair := re.match(rf"\s*({_DOTTED})\s*=", line):
                parts = _split_key(pair[1])
                for depth in range(1, len(parts) + 1):
                    lines.setdefault((*table, *parts[:depth]), number)
        for fence in re.findall(r"\"{3}|'{3}", line):
            quotes = fence if not quotes else "" if fence == quotes else quotes
    return lines


def _split_key(dotted: str) -> Keys:
    return tuple(part.strip("\"'") for part in re.findall(_KEY, dotted))
