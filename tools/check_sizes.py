# ruff: noqa: INP001, T201 - a script that prints
"""Fail when a function has more than 40 lines or a file more than 400: what is longer is two things at once.

python tools/check_sizes.py src [FOLDER ...]
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FUNCTION_LINES = 40
FILE_LINES = 400


def too_long(file: Path) -> Iterator[str]:
    """One line of complaint for each function, and for the file, that is too long."""
    text = file.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    if lines > FILE_LINES:
        yield f"{file}:1: the file has {lines} lines (at most {FILE_LINES})"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{file}:{node.lineno}: {node.name}() has {length} lines (at most {FUNCTION_LINES})"


def main(folders: list[str]) -> int:
    """Print all complaints; 1 if there are any."""
    files = sorted(file for folder in folders or ["src"] for file in Path(folder).rglob("*.py"))
    complaints = [complaint for file in files for complaint in too_long(file)]
    print("\n".join(complaints) or f"{len(files)} files: no function or file is too long")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
