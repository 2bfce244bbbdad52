"""Where the server is and how to talk to it, by the broker's URL.

Pure, but for a look at the files of certificates that a URL names.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import msgspec

from dumbwaiter.brokers.tls import require_tls_files
from dumbwaiter.brokers.url_options import read_flag, read_options, split_address
from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

SCHEMES = ("redis", "rediss", "valkey")
OPTIONS = ("prefix", "ca_certs", "verify")
DEFAULT_PORT = 6379
DEFAULT_PREFIX = "dumbwaiter"
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_FORM = "redis://user:password@host:6379/0?prefix=dumbwaiter"


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """A server, an account and a database in it, and the *prefix* of all keys. *shown* is what may be printed of it.

    With *is_encrypted* by TLS; *ca_certs* is a file with the certificates to trust rather than the system's own, and
    without *verify* any certificate will do.
    """

    host: str
    port: int
    username: str | None
    password: str | None
    database: int
    is_encrypted: bool
    prefix: str
    ca_certs: str | None
    verify: bool
    shown: str


def location_of(url: str) -> Location:
    """What *url* says: ``redis://`` or ``valkey://``, ``rediss://`` for TLS. Raises ConfigError, naming the fault."""
    parts = split_address(url, _FORM)
    if parts.scheme not in SCHEMES or not url.startswith(f"{parts.scheme}://") or parts.fragment:
        raise ConfigError(f"not the address of a Redis or Valkey server: {shown(url)!r}; write {_FORM}")
    options = read_options(parts.query, OPTIONS, url)
    prefix = options.get("prefix", DEFAULT_PREFIX)
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(
            f"prefix={prefix!r} in {shown(url)!r} cannot begin keys: use letters, digits, '.', '_' and '-' (at most 80)"
        )
    is_encrypted = parts.scheme == "rediss"
    if not is_encrypted and (wrong := [name for name in ("ca_certs", "verify") if name in options]):
        raise ConfigError(f"{wrong[0]} in {shown(url)!r} needs TLS; write rediss:// for it")
    require_tls_files(options, url, trusted="ca_certs")
    return Location(
        host=parts.hostname or "127.0.0.1",
        port=DEFAULT_PORT if parts.port is None else parts.port,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        database=_database(parts.path, url),
        is_encrypted=is_encrypted,
        prefix=prefix,
        ca_certs=options.get("ca_certs"),
        verify=read_flag("verify", options.get("verify", "true"), url),
        shown=shown(url),
    )


def _database(path: str, url: str) -> int:
    text = path.strip("/")
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ConfigError(f"{text!r} in {shown(url)!r} is no number of a database; write {_FORM}")
    return int(text or 0)
