"""Bytes as text that sorts as they do: base32 with the extended hex alphabet, in lower case and without padding.

Source: https://www.rfc-editor.org/rfc/rfc4648#section-7.
"""

from __future__ import annotations

import base64


def encode(raw: bytes) -> str:
    """*raw* in the characters 0-9 and a-v, 8 for 5 bytes."""
    return base64.b32hexencode(raw).decode().rstrip("=").lower()


def decode(text: str) -> bytes:
    """What encode() made *text* of. The bits that a last character has to spare are passed over: encode the result
    again to learn whether *text* is the one way to write it. Raises ValueError for what is no such text.
    """
    return base64.b32hexdecode(text.upper() + "=" * (-len(text) % 8))
