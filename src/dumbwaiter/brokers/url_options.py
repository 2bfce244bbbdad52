"""A broker's URL in its parts, and the options behind its ``?``, read by name. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, urlsplit

from dumbwaiter.errors import ConfigError
from dumbwaiter.spelling import did_you_mean
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from collections.abc import Collection


def split_address(url: str, form: str) -> SplitResult:
    """*url* in its parts, whose port can be read. Raises ConfigError, naming the *form* that it should have."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # What urllib says quotes what it took for the port: part of a password in which a /, # or ? stands.
        why = "write what is no letter or digit in a password percent-encoded (%2F for a slash), and a port as a number"
        raise ConfigError(f"cannot read the address {shown(url)!r}: {why}; write {form}") from None
    return parts


def read_options(query: str, known: Collection[str], url: str) -> dict[str, str]:
    """The options in *query*, each of which must be *known*. Raises ConfigError, naming it and *url*."""
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known and "@" in query:
            # Rather the end of a password in which a ? stands: nothing of it may be shown.
            why = "in a user name or password a ? is written %3F"
            raise ConfigError(f"unknown option in {shown(url)!r} ({why}); there are {', '.join(known)}")
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"unknown option {name!r} in {shown(url)!r}{hint}; there are {', '.join(known)}")
        if name in options:
            raise ConfigError(f"option {name!r} stands twice in {shown(url)!r}")
        options[name] = value
    return options


def read_flag(name: str, text: str, url: str) -> bool:
    """Whether the option *name* is on. Raises ConfigError for a *text* that is neither true nor false."""
    if text not in ("true", "false"):
        raise ConfigError(f"{name}={text!r} in {shown(url)!r} must be true or false")
    return text == "true"
