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

PORTS = {"pulsar": 6650, "pulsar+ssl": 6651}
OPTIONS = ("prefix", "token", "admin", "ca_certs", "verify", "cert", "key")
DEFAULT_PREFIX = "dumbwaiter"
_OF_TLS = ("ca_certs", "verify", "cert", "key")
# No dot: topics of one prefix never begin like those of another.
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
_PLACE = re.compile(r"[A-Za-z0-9=:._-]+")
_FORM = "pulsar://host:6650/tenant/namespace?prefix=dumbwaiter"


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """A server, the *tenant* and *namespace* of all topics, and the *prefix* of their names.

    *service_url* is what the client wants to know; *admin* the base of the admin REST interface, None if it shall not
    be asked. *token* authenticates, or *username* and *password* do. *ca_certs* is a file with the certificates to
    trust, *cert* and *key* are files with the client's own; without *verify* any certificate will do. *shown* may be
    printed.
    """

    host: str
    port: int
    tenant: str
    namespace: str
    prefix: str
    username: str | None
    password: str
    token: str | None
    admin: str | None
    is_encrypted: bool
    ca_certs: str | None
    verify: bool
    cert: str | None
    key: str | None
    shown: str

    @property
    def service_url(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'pulsar+ssl' if self.is_encrypted else 'pulsar'}://{host}:{self.port}"


def location_of(url: str) -> Location:
    """What *url* says: ``pulsar://``, or ``pulsar+ssl://`` for TLS. Raises ConfigError, naming the fault.

    The path is tenant and namespace, ``/public/default`` unless it says something else.
    """
    parts = split_address(url, _FORM)
    port = parts.port
    if parts.scheme not in PORTS or not url.startswith(f"{parts.scheme}://") or parts.fragment:
        raise ConfigError(f"not the address of a Pulsar server: {shown(url)!r}; write {_FORM}")
    tenant, namespace = _place(parts.path, url)
    options = read_options(parts.query, OPTIONS, url)
    is_encrypted = parts.scheme == "pulsar+ssl"
    _check(options, url, is_encrypted=is_encrypted, has_user=parts.username is not None)
    require_tls_files(options, url, trusted="ca_certs", own=("cert", "key"))
    return Location(
        host=parts.hostname or "127.0.0.1",
        port=PORTS[parts.scheme] if port is None else port,
        tenant=tenant,
        namespace=namespace,
        prefix=options.get("prefix", DEFAULT_PREFIX),
        username=None if parts.username is None else unquote(parts.username),
        password=unquote(parts.password or ""),
        token=options.get("token"),
        admin=options["admin"].rstrip("/") if "admin" in options else None,
        is_encrypted=is_encrypted,
        ca_certs=options.get("ca_certs"),
        verify=read_flag("verify", options.get("verify", "true"), url),
        cert=options.get("cert"),
        key=options.get("key"),
        shown=shown(url),
    )


def _place(path: str, url: str) -> tuple[str, str]:
    segments = path.strip("/").split("/") if path.strip("/") else ["public", "default"]
    if len(segments) != 2 or not all(map(_PLACE.fullmatch, segments)):
        raise ConfigError(f"the path of {shown(url)!r} must be tenant and namespace; write {_FORM}")
    return segments[0], segments[1]


def _check(options: dict[str, str], url: str, *, is_encrypted: bool, has_user: bool) -> None:
    prefix = options.get("prefix", DEFAULT_PREFIX)
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(
            f"prefix={prefix!r} in {shown(url)!r} cannot begin the names of topics: "
            "use letters, digits, '_' and '-' (at most 80)"
        )
    if not is_encrypted and (wrong := [name for name in _OF_TLS if name in options]):
        raise ConfigError(f"{wrong[0]} in {shown(url)!r} needs TLS; write pulsar+ssl:// for it")
    if ("cert" in options) != ("key" in options):
        raise ConfigError(f"cert and key in {shown(url)!r} go together: a certificate and its private key")
    if "token" in options and has_user:
        raise ConfigError(f"{shown(url)!r} has a user and a token; write one of them")
    admin = options.get("admin")
    if admin is not None and not re.match(r"https?://[^/]", admin):
        raise ConfigError(f"admin= in {shown(url)!r} must be the address of the admin REST interface, http://host:8080")
