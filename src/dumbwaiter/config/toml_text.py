"""Keys and texts as TOML spells them, for whoever writes settings. Pure."""

from __future__ import annotations

import json
import re

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def key(name: str) -> str:
    """*name* as one key, bare where it may be."""
    return name if _BARE.fullmatch(name) else quoted(name)


def quoted(text: str) -> str:
    """*text* as a string."""
    # JSON's escapes are TOML's too, but for DEL, and for surrogates, which neither may hold.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
