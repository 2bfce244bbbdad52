"""Names of queues as a product takes them: written with its letters, no two to one. Pure."""

from __future__ import annotations

import base64
import hashlib

#: An escape is one of these and two hexadecimal digits.
_MARKS = "=~%_-."
#: No hexadecimal digit: behind the mark it says that what follows is a digest, and no escape.
_DIGEST_SIGN = "z"
_DIGEST_CHARACTERS = 16  # 80 bits: two queues of one server never meet by chance


def physical(name: str, *, alphabet: str, limit: int, suffix: str = "") -> str:
    """*name*, with *suffix* behind it as it is, in characters of *alphabet* and at most *limit* of them.

    What *alphabet* lacks is written as a mark and two hexadecimal digits for each byte of UTF-8, as is the mark itself:
    the first of ``= ~ % _ - .`` that *alphabet* has. A name that comes out too long ends in a digest of the whole, so
    that names which begin alike stay two. Those cannot be read back: a product that lists names keeps the true one
    beside. *alphabet* has a mark and the digits 0-9 and a-z; *limit* leaves room for 17 characters and *suffix*.
    """
    mark = next(mark for mark in _MARKS if mark in alphabet)
    taken = frozenset(alphabet) - {mark}
    written = [char if char in taken else _escaped(char, mark) for char in name]
    room = limit - len(suffix)
    whole = "".join(written)
    if len(whole) <= room:
        return f"{whole}{suffix}"
    digest = base64.b32encode(hashlib.sha256(name.encode(errors="surrogatepass")).digest())[:_DIGEST_CHARACTERS]
    end = f"{mark}{_DIGEST_SIGN}{digest.decode().lower()}"
    return f"{_start(written, room - len(end))}{end}{suffix}"


def true_name(written: str, *, alphabet: str) -> str | None:
    """The name that physical() wrote as *written* (without its suffix); None when it was cut or is none of its."""
    mark = next(mark for mark in _MARKS if mark in alphabet)
    first, *escaped = written.split(mark)
    nbytes = bytearray(first.encode())
    try:
        for part in escaped:
            nbytes += bytes.fromhex(part[:2]) if len(part) >= 2 else b"\xff"
            nbytes += part[2:].encode()
        return nbytes.decode()
    except ValueError:  # UnicodeDecodeError is one too
        return None


def _escaped(char: str, mark: str) -> str:
    return "".join(f"{mark}{byte:02x}" for byte in char.encode(errors="surrogatepass"))


def _start(written: list[str], room: int) -> str:
    """As many of *written* as *room* has place for: no escape is cut in two."""
    start = ""
    for piece in written:
        if len(start) + len(piece) > room:
            break
        start += piece
    return start
