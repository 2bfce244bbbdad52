"""Which namespace, and who asks, by the broker's URL and the environment. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import msgspec

from dumbwaiter.brokers.url_options import read_flag, read_options, split_address
from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

OPTIONS = ("prefix", "max_message_size", "emulator", "management_port")
DEFAULT_PREFIX = "dumbwaiter"
VARIABLE = "AZURE_SERVICEBUS_CONNECTION_STRING"
"""The environment variable that may hold a connection string."""
STANDARD_SIZE, PREMIUM_SIZE = 262_144, 104_857_600
"""What one message may take in bytes, its properties included: in the standard tier, and at most in the premium one."""
_MANAGEMENT_PORT = 5300  # that of Microsoft's own emulator
_FORM = "servicebus://NAMESPACE.servicebus.windows.net?option=value"
_PREFIX = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?")


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """The *host* of a namespace, with its port where that is an emulator's, and the *key* (name and secret) that signs;
    None for an identity of Azure. *management_host* is None where it is the same. *is_encrypted*: by TLS, always but
    for emulators. No message takes more than *max_message_size* bytes. *shown* is what may be printed of it all.
    """

    host: str
    key: tuple[str, str] | None
    management_host: str | None
    is_encrypted: bool
    prefix: str
    max_message_size: int
    shown: str


def location_of(url: str, environment: Mapping[str, str]) -> Location:
    """What *url* says: ``servicebus://NAMESPACE.servicebus.windows.net``, or with ``KEYNAME:KEY@`` before it.

    Without a key the one in the connection string of *environment* is taken, and its namespace where *url* names none.
    Raises ConfigError, naming the fault.
    """
    parts = split_address(url, _FORM)
    port = parts.port
    if not url.startswith("servicebus://") or parts.path not in ("", "/") or parts.fragment:
        raise ConfigError(f"not the address of a Service Bus namespace: {shown(url)!r}; write {_FORM}")
    options = read_options(parts.query, OPTIONS, url)
    prefix = options.get("prefix", DEFAULT_PREFIX)
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(
            f"prefix={prefix!r} in {shown(url)!r} cannot begin names: use small letters, digits and '-' (at most 20)"
        )
    is_emulator = read_flag("emulator", options.get("emulator", "false"), url)
    if not is_emulator and (port is not None or "management_port" in options):
        raise ConfigError(f"a port in {shown(url)!r} is for an emulator only: add emulator=true, or leave it out")
    host, key = _host_and_key(url, environment.get(VARIABLE))
    return Location(
        host=f"{host}:{port or 5672}" if is_emulator else host,
        key=key,
        management_host=f"{host}:{_port(url, options.get('management_port'))}" if is_emulator else None,
        is_encrypted=not is_emulator,
        prefix=prefix,
        max_message_size=_size(url, options.get("max_message_size")),
        shown=shown(url),
    )


def _host_and_key(url: str, connection_string: str | None) -> tuple[str, tuple[str, str] | None]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.username is not None:
        if not (host and parts.username and parts.password):
            raise ConfigError(
                f"{shown(url)!r} holds half of a key; write servicebus://KEYNAME:KEY@NAMESPACE.servicebus.windows.net, "
                "the key percent-encoded"
            )
        return host, (unquote(parts.username), unquote(parts.password))
    if connection_string is None:
        if not host:
            raise ConfigError(f"{shown(url)!r} names no namespace; write {_FORM}, or set {VARIABLE}")
        return host, None
    parts_of_it = connection_string.strip().rstrip(";").split(";")
    fields = {name: value for name, _, value in (part.partition("=") for part in parts_of_it)}
    theirs = urlsplit(fields.get("Endpoint", "")).hostname
    name, secret = fields.get("SharedAccessKeyName"), fields.get("SharedAccessKey")
    if not (theirs and name and secret):
        raise ConfigError(
            f"{VARIABLE} is no connection string with a key: Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…"
        )
    if host and host != theirs:
        raise ConfigError(f"{VARIABLE} is for {theirs}, and the address {shown(url)!r} for another; make them one")
    return theirs, (name, secret)


def _port(url: str, text: str | None) -> int:
    if text is None:
        return _MANAGEMENT_PORT
    port = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 0 < port < 65_536:
        raise ConfigError(f"management_port={text!r} in {shown(url)!r} must be a port, 1 to 65535")
    return port


def _size(url: str, text: str | None) -> int:
    if text is None:
        return STANDARD_SIZE
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not STANDARD_SIZE <= size <= PREMIUM_SIZE:
        raise ConfigError(
            f"max_message_size={text!r} in {shown(url)!r} must be a number of bytes from {STANDARD_SIZE} to "
            f"{PREMIUM_SIZE}"
        )
    return size
