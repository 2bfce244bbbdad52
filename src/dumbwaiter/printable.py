"""What foreigners wrote (ids, reasons, names) as it may be printed: a terminal obeys some characters. Pure."""

from __future__ import annotations

import re

# Control characters (ESC and its 8-bit sisters among them), what ends a line, what turns the direction of writing, and
# halves of characters, which no stream takes.
_ORDERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ORDERS_BUT_LINES = re.compile(f"(?![\n\t]){_ORDERS.pattern}")


def printable(text: str, *, keep_lines: bool = False) -> str:
    """*text* with what is no sign to read spelled out, as Python does. *keep_lines* keeps ends of lines and tabs."""
    return (_ORDERS_BUT_LINES if keep_lines else _ORDERS).sub(lambda found: repr(found[0])[1:-1], text)
