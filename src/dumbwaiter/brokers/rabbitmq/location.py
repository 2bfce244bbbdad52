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

PORTS = {"amqp": 5672, "amqps": 5671}
OPTIONS = ("prefix", "heartbeat", "ca_certs", "verify")
DEFAULT_PREFIX = "dumbwaiter"
DEFAULT_HEARTBEAT = 10
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_FORM = "amqp://user:password@host:5672/virtual-host?prefix=dumbwaiter"


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """A server, an account and a virtual host in it, and the *prefix* of all queues. *shown* is what may be printed.

    *heartbeat*, in seconds: about two of them without a sign of life end the connection, on either side. With
    *is_encrypted* by TLS; *ca_certs* is a file with the certificates to trust rather than the system's own, and without
    *verify* any certificate will do.
    """

    host: str
    port: int
    username: str
    password: str
    virtual_host: str
    is_encrypted: bool
    prefix: str
    heartbeat: int
    ca_certs: str | None
    verify: bool
    shown: str


def location_of(url: str) -> Location:
    """What *url* says: ``amqp://``, or ``amqps://`` for TLS. Raises ConfigError, naming the fault.

    As in RabbitMQ's own URIs a virtual host is one percent-encoded segment (``%2F`` is the default one).
    """
    parts = split_address(url, _FORM)
    if parts.scheme not in PORTS or not url.startswith(f"{parts.scheme}://") or parts.fragment:
        raise ConfigError(f"not the address of a RabbitMQ server: {shown(url)!r}; write {_FORM}")
    if "@" in parts.path:
        why = "in a password a slash is written %2F, and in a virtual host an @ is %40"
        raise ConfigError(f"cannot read the address {shown(url)!r}: {why}; write {_FORM}")
    if "/" in parts.path[1:]:
        raise ConfigError(f"the virtual host in {shown(url)!r} holds a slash; write it as %2F")
    options = read_options(parts.query, OPTIONS, url)
    prefix = options.get("prefix", DEFAULT_PREFIX)
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(
            f"prefix={prefix!r} in {shown(url)!r} cannot begin the names of queues: "
            "use letters, digits, '.', '_' and '-' (at most 80)"
        )
    is_encrypted = parts.scheme == "amqps"
    if not is_encrypted and (wrong := [name for name in ("ca_certs", "verify") if name in options]):
        raise ConfigError(f"{wrong[0]} in {shown(url)!r} needs TLS; write amqps:// for it")
    require_tls_files(options, url, trusted="ca_certs")
    return Location(
        host=parts.hostname or "127.0.0.1",
        port=PORTS[parts.scheme] if parts.port is None else parts.port,
        username="guest" if parts.username is None else unquote(parts.username),
        password="guest" if parts.password is None else unquote(parts.password),
        virtual_host=unquote(parts.path[1:]) or "/",
        is_encrypted=is_encrypted,
        prefix=prefix,
        heartbeat=_heartbeat(options.get("heartbeat"), url),
        ca_certs=options.get("ca_certs"),
        verify=read_flag("verify", options.get("verify", "true"), url),
        shown=shown(url),
    )


def _heartbeat(text: str | None, url: str) -> int:
    if text is None:
        return DEFAULT_HEARTBEAT
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 3600):
        raise ConfigError(f"heartbeat={text!r} in {shown(url)!r} must be whole seconds from 1 to 3600")
    return int(text)
