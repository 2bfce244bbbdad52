"""Where the servers are and what a URL says of them. Pure."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import msgspec

from dumbwaiter.brokers.url_options import read_options
from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

DEFAULT_PORT = 4222
_OPTIONS = ("prefix", "replicas", "domain", "token", "creds", "tls_ca", "tls_cert", "tls_key", "monitor")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL says: *servers* as ``host:port``, whether with *tls*, who we are, and the options behind its ``?``.

    *domain* is JetStream's, of a leaf node or hub; *monitor* the base URL of the server's monitoring port.
    """

    servers: tuple[str, ...]
    tls: bool = False
    user: str | None = None
    password: str | None = None
    prefix: str = "dumbwaiter"
    replicas: int = 1
    domain: str | None = None
    token: str | None = None
    creds: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    monitor: str | None = None


def read_url(url: str) -> Address:
    """The address that *url* names: ``nats://user:password@host:4222,other:4222?option=value`` or ``tls://``.

    Raises ConfigError, naming the part that is wrong and no secret.
    """
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    userinfo, _, hosts = place.rpartition("@")
    if scheme not in ("nats", "tls") or hosts.rstrip("/").count("/") or "#" in rest:
        raise ConfigError(f"not the address of NATS: {shown(url)!r}; write nats://host:4222 or tls://host:4222")
    user, colon, password = userinfo.partition(":")
    options = _options(url, query)
    replicas = options.pop("replicas", "1")
    if replicas not in ("1", "3", "5"):
        raise ConfigError(f"replicas must be 1, 3 or 5, not {replicas!r}, in {shown(url)!r}")
    address = Address(
        servers=tuple(_server(url, host) for host in hosts.rstrip("/").split(",")),
        tls=scheme == "tls",
        user=unquote(user) if userinfo and colon else None,
        password=unquote(password) if colon else None,
        replicas=int(replicas),
        **options,
    )
    if userinfo and not colon:  # as NATS's own tools write a token
        return msgspec.structs.replace(address, token=unquote(user))
    return address


def _options(url: str, query: str) -> dict[str, str]:
    options = read_options(query, _OPTIONS, url)
    for name, value in options.items():
        if not value:
            raise ConfigError(f"option {name!r} in {shown(url)!r} has no value")
        if name in ("prefix", "domain") and not _NAME.fullmatch(value):
            raise ConfigError(f"{name} must be 1 to 64 letters, digits, '_' and '-', not {value!r}, in {shown(url)!r}")
    return options


def _server(url: str, host: str) -> str:
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port
    except ValueError:
        raise ConfigError(f"{shown(url)!r} names no host and port; write host:4222") from None
    if not parts.hostname:
        raise ConfigError(f"{shown(url)!r} names no host; write nats://host:4222")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{name}:{DEFAULT_PORT if port is None else port}"
