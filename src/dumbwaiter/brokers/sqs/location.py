"""Which region and endpoint, by the broker's URL. Credentials never stand there. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec

from dumbwaiter.brokers.url_options import read_options
from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

OPTIONS = ("endpoint", "prefix", "max_message_size")
DEFAULT_PREFIX = "dumbwaiter"
OLD_LIMIT, LIMIT = 262_144, 1_048_576
"""What one message may take in bytes, its attributes included: in queues made before August 2025, and since then."""
_FORM = "sqs://eu-central-1?option=value"
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,19}")


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """A *region*, None for the one that the environment names; an *endpoint*, None for Amazon's own; and the *prefix*
    of all names. No message takes more than *max_message_size* bytes. *shown* is what may be printed of it all.
    """

    region: str | None
    endpoint: str | None
    prefix: str
    max_message_size: int
    shown: str


def location_of(url: str) -> Location:
    """What *url* says: ``sqs://eu-central-1?endpoint=http://127.0.0.1:4566``. Raises ConfigError, naming the fault."""
    if not url.startswith("sqs://"):
        raise ConfigError(f"not the address of SQS: {shown(url)!r}; write {_FORM}")
    place, _, query = url.removeprefix("sqs://").partition("?")
    region = place.rstrip("/")
    if "@" in place:
        raise ConfigError(
            f"{shown(url)!r} holds credentials, which must not stand there: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role"
        )
    if region and not _REGION.fullmatch(region):
        raise ConfigError(f"{region!r} in {shown(url)!r} is no name of a region; write {_FORM}")
    options = read_options(query, OPTIONS, url)
    prefix = options.get("prefix", DEFAULT_PREFIX)
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(
            f"prefix={prefix!r} in {shown(url)!r} cannot begin names: use letters, digits and '-' (at most 20)"
        )
    return Location(
        region=region or None,
        endpoint=_endpoint(url, options.get("endpoint")),
        prefix=prefix,
        max_message_size=_size(url, options.get("max_message_size")),
        shown=shown(url),
    )


def _endpoint(url: str, endpoint: str | None) -> str | None:
    if endpoint is None:
        return None
    try:
        parts = urlsplit(endpoint)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in endpoint
    except ValueError:
        is_good = False
    if not is_good:
        raise ConfigError(f"endpoint in {shown(url)!r} must be a URL such as http://127.0.0.1:4566")
    return endpoint


def _size(url: str, text: str | None) -> int:
    if text is None:
        return OLD_LIMIT
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not OLD_LIMIT <= size <= LIMIT:
        raise ConfigError(
            f"max_message_size={text!r} in {shown(url)!r} must be a number of bytes from {OLD_LIMIT} to {LIMIT}"
        )
    return size
