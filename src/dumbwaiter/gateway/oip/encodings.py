"""Content-Encoding of request bodies: gzip and deflate, as Triton's clients send them. Pure.

Source: RFC 9110, 8.4.1 (deflate is the zlib format).
"""

from __future__ import annotations

import zlib

from dumbwaiter.gateway.oip.problems import refused

MOST_INFLATION = 1032
"""One byte of deflate becomes at most so many (https://zlib.net/zlib_tech.html)."""

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def inflate(encoding: str, body: bytes, *, limit: int) -> bytes:
    """*body* as it was before *encoding*. Raises ProblemError: 415 for an encoding that is not known, 413 as soon as
    it has more than *limit* bytes, 400 when it is damaged.
    """
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in _WINDOW_BITS:
        detail = f"Content-Encoding {coding[:40]!r} is not taken; gzip and deflate are"
        raise refused(detail, status=415, code="unsupported-encoding")
    decompressor = zlib.decompressobj(_WINDOW_BITS[coding])
    try:
        plain = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise refused(f"the body is no sound {coding}: {error}") from None
    if len(plain) > limit:
        raise refused(f"the body exceeds the limit of {limit} bytes once unpacked", status=413, code="body-too-large")
    if not decompressor.eof or decompressor.unused_data:
        raise refused(
            f"the body is no sound {coding}: it {'goes on after' if decompressor.eof else 'ends before'} its end"
        )
    return plain
