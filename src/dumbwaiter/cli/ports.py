"""Looking at a port before anything is started for it, so that a taken one is a clear error at once."""

from __future__ import annotations

import errno
import os
import socket

from dumbwaiter.errors import ConfigError


def usable_port(
    host: str, port: int, *, share: bool = False, flag: str = "--port", setting: str = "gateway.host"
) -> int:
    """*port*, or a free one for 0. Raises ConfigError when it is in use or may not be had; with *share* other gateways
    may use it too. *flag* and *setting* are those that chose port and host.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"{setting} {host!r} is no address of this machine: {error.strerror}") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind(address)
            probe.listen(1)  # with SO_REUSEADDR only this fails where another socket listens
        except OSError as error:
            raise ConfigError(_why(error, host, port, flag)) from None
        free: int = probe.getsockname()[1]
        return free


def _why(error: OSError, host: str, port: int, flag: str = "--port") -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another with {flag} N, or any free one with {flag} 0"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} on {host} needs privileges; choose one above 1023 with {flag} N"
    return f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}"


#: Addresses that mean all of this machine's, and the one of them that it reaches itself by.
_ALL = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared, not bound


def is_all(host: str) -> bool:
    """Whether *host* means all addresses of this machine, rather than one."""
    return host in _ALL


def url_of(host: str, port: int, *, tls: bool = False) -> str:
    """The URL under which callers on this machine reach a gateway that listens on *host*."""
    reachable = _ALL.get(host, host)
    if ":" in reachable and not reachable.startswith("["):
        reachable = f"[{reachable}]"
    return f"{'https' if tls else 'http'}://{reachable}:{port}"
