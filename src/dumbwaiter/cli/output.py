"""How data is printed: tables for people, JSON for programs. rich is imported only here and in serve_view.py."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from dumbwaiter.printable import printable


def print_json(value: Any) -> None:
    """*value* as JSON on stdout: indented on a terminal, one line elsewhere."""
    data = msgspec.json.encode(value, enc_hook=str)
    if sys.stdout.isatty():
        data = msgspec.json.format(data, indent=2)
    print(data.decode(), flush=True)


def print_json_line(value: Any) -> None:
    """*value* as one line of JSON on stdout, also on a terminal: where each line is an answer or an event."""
    print(msgspec.json.encode(value, enc_hook=str).decode(), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """A table on stdout; the columns in *right* are aligned to the right. On a terminal the last one may be folded."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_on_terminal(columns, cells, right)
        return
    # rich would fold, pad and cut to a width that no program has.
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in [columns, *cells]:
        aligned = (
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, row, widths, strict=True)
        )
        print("  ".join(aligned).rstrip(), flush=True)


def _print_on_terminal(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str]) -> None:
    from rich.console import Console  # noqa: PLC0415 - 15 ms that --json need not pay
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=column != columns[-1],
        )
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)


def shortened(text: str, limit: int = 120) -> str:
    """*text*, cut to *limit* characters on a terminal; a cut is marked."""
    return text if len(text) <= limit or not sys.stdout.isatty() else f"{text[: limit - 1]}…"


def duration(seconds: float) -> str:
    """``3 ms``, ``12.3 s``, ``4 min``, ``2.5 h``."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def local_time(seconds: float) -> str:
    """Seconds since the epoch as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def preview(body: bytes, limit: int = 200) -> str:
    """The beginning of *body* for a person to see: text as it is, other bytes by their number."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return f"{len(body)} bytes, not text"
    return text if len(text) <= limit else f"{text[:limit]}… ({len(body)} bytes)"
