"""Where a gateway listens: its socket, and the certificate that it shows there."""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from dumbwaiter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dumbwaiter.config import GatewaySettings

BACKLOG = 2048
FILES_BESIDE = 200
"""So many open files are left to the rest of the process: the broker, the store, connections that are being closed."""

_log = logging.getLogger("dumbwaiter.gateway")


def listen(host: str, port: int, *, share: bool = False) -> socket.socket:
    """A listening socket. With *share* other processes of this user may listen there too (SO_REUSEPORT).

    Raises ConfigError, naming the address and the reason.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; choose another host") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; choose another port") from None
    listener.setblocking(False)
    return listener


def connections_within(wanted: int) -> int:
    """How many connections, *wanted* at most, the files that this process may open suffice for.

    Raises the process's soft limit to its hard one. Says once when *wanted* are too many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS refuses what it has set itself as "unlimited"
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft == resource.RLIM_INFINITY or wanted <= soft - FILES_BESIDE:
        return wanted
    fitting = max(soft - FILES_BESIDE, soft // 2)
    _log.warning(
        "gateway.max_connections is %d, but this process may open %d files, so it serves %d; raise that limit "
        "(ulimit -Hn, LimitNOFILE)",
        wanted,
        soft,
        fitting,
    )
    return fitting


class Certificate:
    """The certificate and key of *options*. *context* is for new connections; renew() follows the files."""

    def __init__(self, options: GatewaySettings) -> None:
        if options.certfile is None or options.keyfile is None:
            missing = "gateway.certfile" if options.certfile is None else "gateway.keyfile"
            raise ConfigError(f"TLS takes a certificate and its private key: {missing} is not set")
        self._certfile, self._keyfile = options.certfile, options.keyfile
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.set_alpn_protocols(["http/1.1"])
        self._seen = self._versions()
        self._load(self.context)

    def renew(self) -> None:
        """Take the files again if they have changed; while they cannot be used, the certificate in use stays."""
        try:
            seen = self._versions()
            if seen == self._seen:
                return
            self._seen = seen
            # A context that fails half-way would show a certificate without its key.
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(self.context)
        except ConfigError as error:
            _log.warning("the certificate was changed and cannot be used, so the former one stays: %s", error)
        else:
            _log.info("the certificate was renewed from %s", self._certfile)

    def _versions(self) -> Mapping[str, tuple[int, int]]:
        versions = {}
        for name, path in (("certfile", self._certfile), ("keyfile", self._keyfile)):
            try:
                found = Path(path).stat()
                with Path(path).open("rb"):
                    versions[name] = (found.st_ino, found.st_mtime_ns)
            except OSError as error:
                raise ConfigError(f"gateway.{name}: cannot read {path}: {error.strerror}") from None
        return versions

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._certfile, self._keyfile, password=_no_password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                reason = f"the key in {self._keyfile} is not that of the certificate in {self._certfile}"
            else:
                files = f"{self._certfile} holds no certificate or {self._keyfile} no key, in PEM"
                reason = f"{files}: {error.reason or error}"
            raise ConfigError(f"gateway.certfile, gateway.keyfile: {reason}") from None
        except OSError as error:
            raise ConfigError(f"gateway.certfile, gateway.keyfile: cannot be read: {error.strerror}") from None
        except _EncryptedError:
            reason = "is encrypted; a gateway starts without anybody to ask, so store it without a passphrase"
            raise ConfigError(f"gateway.keyfile: the key in {self._keyfile} {reason}") from None


class _EncryptedError(Exception):
    pass


def _no_password() -> str:
    raise _EncryptedError


def certificate_of(options: GatewaySettings) -> Certificate | None:
    """The certificate that *options* name; None without TLS. Raises ConfigError, naming the file and the reason."""
    return None if options.certfile is None and options.keyfile is None else Certificate(options)
