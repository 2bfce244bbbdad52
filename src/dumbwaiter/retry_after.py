"""How long a server asks its callers to wait: the header Retry-After of HTTP. Pure."""

from __future__ import annotations


def seconds_of(text: str | None, *, now: float) -> float | None:
    """Seconds from *now* (since the Unix epoch) that a Retry-After header asks for; None when it says nothing clear.

    Source: RFC 9110, section 10.2.3.
    """
    import email.utils  # noqa: PLC0415 - few answers have the header, and it takes a while

    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None
