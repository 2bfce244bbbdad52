"""Where the brokers are and what a URL says of them.

Pure, but for a look at the files of certificates that a URL names.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import msgspec

from dumbwaiter.brokers.tls import require_tls_files
from dumbwaiter.brokers.url_options import read_options
from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

DEFAULT_PORT = 9092
OPTIONS = (
    "prefix",
    "replicas",
    "partitions",
    "max_message_size",
    "fetch_wait",
    "security",
    "sasl",
    "tls_ca",
    "tls_cert",
    "tls_key",
)
USUAL_LIMIT = 1_048_588
"""What a broker takes in bytes unless it is configured otherwise: max.message.bytes."""
_FORM = "kafka://user:password@host:9092,host2:9092?option=value"
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,19}")
_SECURITY = ("plaintext", "ssl")
_SASL = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL says: *servers* as ``host:port`` with commas, who we are, and the options behind its ``?``.

    *replicas* is on how many brokers a new topic lies, None for as many as the brokers say; *partitions* how many a
    lane has; *max_message_size* the bytes that a batch of records may take, None for what the brokers say; *fetch_wait*
    for how many seconds a broker may keep a fetch that finds nothing. *shown* is what may be printed of it all.
    """

    servers: str
    shown: str
    user: str | None = None
    password: str | None = None
    prefix: str = "dumbwaiter"
    replicas: int | None = None
    partitions: int = 1
    max_message_size: int | None = None
    fetch_wait: float = 0.5
    security: str = "plaintext"
    sasl: str = "PLAIN"
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None

    def client_settings(self) -> dict[str, object]:
        """How a client of librdkafka gets there."""
        protocol = f"sasl_{self.security}" if self.user is not None else self.security
        settings: dict[str, object] = {"bootstrap.servers": self.servers, "security.protocol": protocol}
        if self.user is not None:
            settings |= {
                "sasl.mechanism": self.sasl,
                "sasl.username": self.user,
                "sasl.password": self.password or "",
            }
        files = {
            "ssl.ca.location": self.tls_ca,
            "ssl.certificate.location": self.tls_cert,
            "ssl.key.location": self.tls_key,
        }
        return settings | {name: path for name, path in files.items() if path is not None}


def location_of(url: str) -> Location:
    """What *url* says. Raises ConfigError, naming the part that is wrong and no secret."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    userinfo, _, hosts = place.rpartition("@")
    hosts = hosts.rstrip("/")
    if scheme != "kafka" or "/" in hosts or "#" in rest:
        raise ConfigError(f"not the address of Kafka: {shown(url)!r}; write {_FORM}")
    user, colon, password = userinfo.partition(":")
    if userinfo and not colon:
        raise ConfigError(f"a user without a password in {shown(url)!r}; write {_FORM}")
    options = read_options(query, OPTIONS, url)
    for name, value in options.items():
        if not value:
            raise ConfigError(f"option {name!r} in {shown(url)!r} has no value")
    require_tls_files(options, url, trusted="tls_ca", own=("tls_cert", "tls_key"), or_folder=True)
    return Location(
        servers=",".join(_server(url, host) for host in hosts.split(",")),
        shown=shown(url),
        user=unquote(user) if userinfo else None,
        password=unquote(password) if userinfo else None,
        prefix=_prefix(url, options.get("prefix", "dumbwaiter")),
        replicas=_number(url, options, "replicas", 1, 100),
        partitions=_number(url, options, "partitions", 1, 1000) or 1,
        max_message_size=_number(url, options, "max_message_size", 100_000, 1_000_000_000),
        fetch_wait=_seconds(url, options.get("fetch_wait", "0.5")),
        security=_one_of(url, "security", options.get("security", "plaintext"), _SECURITY),
        sasl=_one_of(url, "sasl", options.get("sasl", "PLAIN"), _SASL),
        tls_ca=options.get("tls_ca"),
        tls_cert=options.get("tls_cert"),
        tls_key=options.get("tls_key"),
    )


def _server(url: str, host: str) -> str:
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port
    except ValueError:
        raise ConfigError(f"{shown(url)!r} names no host and port; write {_FORM}") from None
    if not parts.hostname or port == 0:
        raise ConfigError(f"{shown(url)!r} names no host and port; write {_FORM}")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{name}:{DEFAULT_PORT if port is None else port}"


def _prefix(url: str, text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise ConfigError(f"prefix={text!r} in {shown(url)!r} must be at most 20 letters, digits and '-'")
    return text


def _number(url: str, options: dict[str, str], name: str, least: int, most: int) -> int | None:
    text = options.get(name)
    if text is None:
        return None
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1
    if not least <= number <= most:
        raise ConfigError(f"{name}={text!r} in {shown(url)!r} must be a whole number from {least} to {most}")
    return number


def _seconds(url: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.001 <= seconds <= 60:
        raise ConfigError(f"fetch_wait={text!r} in {shown(url)!r} must be a number of seconds from 0.001 to 60")
    return seconds


def _one_of(url: str, name: str, text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise ConfigError(f"{name}={text!r} in {shown(url)!r} must be one of {', '.join(known)}")
    return text
