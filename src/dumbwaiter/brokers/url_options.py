"""The options behind the ``?`` of a broker's URL, read by name. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from dumbwaiter.errors import ConfigError
from dumbwaiter.spelling import did_you_mean
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from collections.abc import Collection


def read_options(query: str, known: Collection[str], url: str) -> dict[str, str]:
    """The options in *query*, each of which must be *known*. Raises ConfigError, naming it and *url*."""
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
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
