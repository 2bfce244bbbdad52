"""Who sends a browser here? Where no API key is asked for, a web page could speak for whoever looks at it. Pure.

Two ways lead a page to a gateway that trusts its network: a name of the attacker's own that suddenly resolves to this
address (DNS rebinding), which shows in the Host header; and a form or a fetch that needs no answer, which shows in the
Origin header (https://fetch.spec.whatwg.org/#origin-header).
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Nobody can register a name that ends so (RFC 6761, ICANN's reservation of .internal, Kubernetes' cluster domain).
_RESERVED = (".localhost", ".internal", ".cluster.local")
_DEFAULT_PORTS = {"http": 80, "https": 443, None: None}


@functools.cache
def own_names() -> frozenset[str]:
    """What this machine calls itself, in lower case. Asked once: the answer may come from a name server."""
    return frozenset(name.lower().rstrip(".") for name in (socket.gethostname(), socket.getfqdn()) if name)


class KnownHosts:
    """The names that callers may know this gateway by: *host*, *public_url*, those of this machine, addresses, and
    names that no stranger can own. *origins* are the pages that may call besides those that come from here.
    """

    def __init__(self, host: str, public_url: str | None, origins: Iterable[str]) -> None:
        self._names = {"localhost", host.lower(), *own_names()}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        if public_url:
            url = urlsplit(public_url)
            self._names.add((url.hostname or "").lower())
            self._origins.add(f"{url.scheme}://{url.netloc}".lower())

    def is_ours(self, host: str) -> bool:
        """Whether the Host header *host* names this gateway rather than an attacker's domain."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self._names or name.endswith(_RESERVED):
            return True
        try:
            ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return False
        return True

    def may_call(self, origin: str, host: str) -> bool:
        """Whether a page of *origin* may call a gateway that it names *host*: those from here, and those allowed."""
        origin = origin.lower()
        if "*" in self._origins or origin in self._origins:
            return True
        try:
            page, ours = urlsplit(origin), urlsplit(f"{urlsplit(origin).scheme}://{host.lower()}")
            default = _DEFAULT_PORTS.get(page.scheme)
            same_port = (page.port or default) == (ours.port or default)
        except ValueError:
            return False
        return page.hostname is not None and page.hostname == ours.hostname and same_port
