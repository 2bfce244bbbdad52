"""What somebody may have meant who wrote a name wrongly. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(wrong: str, right: Iterable[str]) -> str:
    """``; did you mean 'port'?`` or nothing when nothing is near."""
    near = difflib.get_close_matches(wrong, list(right), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
