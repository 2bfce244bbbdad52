"""Object stores by URL, through obstore, with times that suit large objects and slow readers.

obstore by itself gives up on a body that takes longer than 30 s, and on reading it again after 180 s: an object of
some gigabytes, or a caller who reads slowly, would never see its end. Here nothing is wrong as long as bytes come.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SILENCE = 20.0
"""After so many seconds without a byte from a service, a request is asked again, or has failed."""
RETRY_FOR = 30.0
"""So many seconds after it was asked first a request is not asked again."""

_TIMES = {"connect_timeout": "5s", "read_timeout": f"{SILENCE:g}s", "timeout": "1day"}
#: Given our times, obstore no longer looks into the environment for these.
_FROM_ENVIRONMENT = (
    *_TIMES,
    "allow_http",
    "allow_invalid_certificates",
    "http1_only",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "user_agent",
)
_PREFIXES = {"s3": "AWS_", "az": "AZURE_", "gs": "GOOGLE_"}


def connect(url: str) -> ObjectStore:
    """The store at *url* (``s3://``, ``gs://``, ``az://``); credentials and addresses come from the environment.

    Raises ConfigError for a URL that names none; does no I/O.
    """
    from obstore.exceptions import BaseError  # noqa: PLC0415 - slow to import, and not needed by all
    from obstore.store import from_url  # noqa: PLC0415

    try:
        return from_url(url, client_options=client_options(url), retry_config=_retries())
    except (BaseError, ValueError) as error:
        why = reason(error).replace(url, shown(url))  # it may quote the URL, with what is secret in it
        raise ConfigError(f"cannot use the blob store {shown(url)!r}: {why}") from error


def reason(error: Exception) -> str:
    """What obstore says of an *error*, in one line and without the dump of its Rust error behind it."""
    return " ".join(str(error).split("\n\n", maxsplit=1)[0].split()) or type(error).__name__


def client_options(url: str) -> Any:
    """How the service of *url* is talked to: our times, and what the environment says otherwise."""
    prefix = _PREFIXES.get(url.partition(":")[0].lower(), "")
    named = {name: os.environ.get(prefix + name.upper()) for name in _FROM_ENVIRONMENT if prefix}
    return _TIMES | {name: value for name, value in named.items() if value is not None}


def _retries() -> Any:
    return {"max_retries": 10, "retry_timeout": timedelta(seconds=RETRY_FOR)}
