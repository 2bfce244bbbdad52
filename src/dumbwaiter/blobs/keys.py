"""Blob keys: what may be one, and how any text (a request id, a message id) becomes one segment of one."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

from dumbwaiter.errors import BlobError

#: Names of files that are still being written start with this, so no key may.
UNFINISHED_PREFIX = ".tmp-"
#: What lies below it only the store's owner may read.
PRIVATE_FOLDER = "secrets/"
_MAX_KEY_NBYTES = 1024  # S3's and GCS's limit
_MAX_SEGMENT_NBYTES = 255  # NAME_MAX on Linux
_MAX_QUOTED = 200
_SEGMENT = re.compile(r"[A-Za-z0-9._~%=@+-]+")


def check_key(key: str) -> str:
    """Return *key* if every store can take it; raise BlobError, naming it and what is wrong, otherwise."""
    if len(key.encode(errors="replace")) > _MAX_KEY_NBYTES:
        raise BlobError(f"not a blob key: {key[:60]!r}... is longer than {_MAX_KEY_NBYTES} bytes")
    for segment in key.split("/"):
        reason = _wrong_with(segment)
        if reason:
            raise BlobError(f"not a blob key: {key!r} {reason}; keys are segments of A-Z a-z 0-9 . _ ~ % = @ + - and /")
    return key


def is_key(name: str) -> bool:
    """Whether check_key() takes *name*. What lies in a store under another one was put there by somebody else."""
    return len(name.encode(errors="replace")) <= _MAX_KEY_NBYTES and not any(map(_wrong_with, name.split("/")))


def check_prefix(prefix: str) -> str:
    """Return *prefix* if it is empty or names a folder (``claims/``); raise BlobError otherwise."""
    if prefix:
        if not prefix.endswith("/"):
            raise BlobError(f"not a blob prefix: {prefix!r} must end in /")
        check_key(prefix[:-1])
    return prefix


def safe_segment(text: str) -> str:
    """One key segment for *any* text, different texts giving different segments.

    Percent-encoded where that fits, hashed where it does not. A hash is marked with ``=``, which encoding never
    leaves, so that nobody can choose a text that takes another's place.
    """
    quoted = quote(text, safe="", errors="surrogatepass")
    if quoted.startswith("."):
        quoted = "%2E" + quoted[1:]
    if 0 < len(quoted) <= _MAX_QUOTED:
        return quoted
    return "=" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _wrong_with(segment: str) -> str | None:
    if segment in {"", ".", ".."}:
        return "has an empty, . or .. segment"
    if len(segment.encode(errors="replace")) > _MAX_SEGMENT_NBYTES:
        return f"has a segment longer than {_MAX_SEGMENT_NBYTES} bytes"
    if segment.startswith(UNFINISHED_PREFIX):
        return f"has a segment that starts with {UNFINISHED_PREFIX}"
    return None if _SEGMENT.fullmatch(segment) else "has a character that not every store takes"
