"""Which URLs and addresses may be reached on behalf of a caller. Pure: names are resolved elsewhere (client.py).

A URL is read by one strict grammar, and only what that reading yields is ever connected to: there is no second parser
that could see another host in the same text. An address is judged by what it reaches, however it was written.

Sources: RFC 3986 (URLs), UTS 46 (names that are not ASCII), and the IANA registries of special-purpose IPv4 and IPv6
addresses (https://www.iana.org/assignments/iana-ipv4-special-registry, .../iana-ipv6-special-registry).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

import idna
import msgspec

from dumbwaiter.config import OutboundSettings
from dumbwaiter.errors import ConfigError, ForbiddenUrlError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL_NCHARS = 8192
_MAX_HOST_NCHARS = 253
_SHOWN_NCHARS = 200
_PORTS = {"https": 443, "http": 80}
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<target>[^#]*)(?:#.*)?")
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{0,5}))?")
_ODD = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\\]|\s")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_LOOKS_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NOT_IN_TARGET = re.compile(r"%(?![0-9A-Fa-f]{2})")
_TARGET_SAFE = "!$%&'()*+,-./:;=?@_~"

_NOT_PUBLIC: Sequence[Network] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network: 0.0.0.0 connects to this very machine
        "10.0.0.0/8",
        "100.64.0.0/10",  # between a provider and its customers (CGNAT); some clouds' metadata services
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's virtual machines reach their host here, although the address is a public one
        "169.254.0.0/16",  # link-local: the metadata services of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; some clouds' metadata services
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")  # all that is handed out as global unicast
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_6TO4 = ipaddress.IPv6Network("2002::/16")
_ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})


class Target(msgspec.Struct, frozen=True):
    """Where a URL leads: *host* is a name in lower case, or an address without brackets; *target* is path and query,
    all ASCII.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def address(self) -> Address | None:
        """The host as an address; None when it is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def url(self) -> str:
        """The same place, spelled one way."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"

    @property
    def place(self) -> str:
        """The same for logs and dead letters: without its query, which may hold a secret, and cut where it is long."""
        place = self.url.partition("?")[0]
        return place if len(place) <= _SHOWN_NCHARS else f"{place[:_SHOWN_NCHARS]}..."


class AddressPolicy:
    """What *settings* allow. Raises ConfigError when they name a host or a network that is none."""

    def __init__(self, settings: OutboundSettings) -> None:
        self._schemes = ("https", "http") if settings.allow_http else ("https",)
        self._networks = [_network(text) for text in settings.allowed_networks]
        self._names, self._suffixes = _hosts(settings.allowed_hosts)

    def check_url(self, url: str) -> Target:
        """Where *url* leads, if it may be reached as far as its text tells. Raises ForbiddenUrlError.

        A host that is a name is still to be resolved, and each of its addresses to be checked.
        """
        try:
            target = _read(url, self._schemes)
            self._check_host(target.host)
            if (address := target.address) is not None:
                self.check_address(address)
        except _RefusedError as error:
            raise ForbiddenUrlError(url, str(error)) from None
        except ForbiddenUrlError as error:
            raise ForbiddenUrlError(url, error.reason) from None
        return target

    def check_address(self, address: Address, *, url: str = "") -> None:
        """Raise ForbiddenUrlError (for *url*) unless *address* is public or within an allowed network."""
        if self._is_allowed(address):
            return
        if not all(_is_public(one) or self._is_allowed(one) for one in _meant(address)):
            raise ForbiddenUrlError(url, "its host has an address that is not public (see outbound.allowed_networks)")

    def _is_allowed(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def _check_host(self, host: str) -> None:
        if not self._names and not self._suffixes:
            return
        if host not in self._names and not any(host.endswith(suffix) for suffix in self._suffixes):
            raise _RefusedError("its host is not among those that are allowed (see outbound.allowed_hosts)")


class _RefusedError(Exception):
    """Why a URL is refused, before the URL is named."""


def _read(url: str, schemes: Sequence[str]) -> Target:
    if len(url) > MAX_URL_NCHARS:
        raise _RefusedError(f"it has more than {MAX_URL_NCHARS} characters")
    if _ODD.search(url):
        raise _RefusedError("it holds a space, a control character or a backslash")
    match = _URL.fullmatch(url)
    if match is None:
        raise _RefusedError("it is no URL of the form https://host/path")
    scheme = match["scheme"].lower()
    if scheme not in schemes:
        hint = " (see outbound.allow_http)" if scheme == "http" else ""
        raise _RefusedError(f"its scheme must be {' or '.join(schemes)}{hint}")
    host, port = _read_authority(match["authority"])
    return Target(scheme, host, port or _PORTS[scheme], _read_target(match["target"]))


def _read_authority(authority: str) -> tuple[str, int | None]:
    if "@" in authority:
        raise _RefusedError("it holds a user name or password; send such things in a query or a header of your own")
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise _RefusedError("its host or port has a wrong form")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise _RefusedError("its port is not between 1 and 65535")
    return _read_host(match["host"]), port


def _read_host(text: str) -> str:
    if text.startswith("["):
        return _read_v6(text[1:-1])
    if not text or len(text) > _MAX_HOST_NCHARS + 1:
        raise _RefusedError("it has no host, or one that is too long")
    # Full-width digits, circled letters and other dots become what they look like here, and are then judged as that.
    host = (text if text.isascii() else _to_ascii(text)).lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > _MAX_HOST_NCHARS or not all(_LABEL.fullmatch(label) for label in labels):
        raise _RefusedError("its host is no valid name")
    if _LOOKS_NUMERIC.fullmatch(labels[-1]):
        # What resolvers take for an address: 127.1, 0177.0.0.1, 0x7f000001, 2130706433. Only one spelling is read.
        return _read_v4(host)
    return host


def _to_ascii(text: str) -> str:
    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise _RefusedError("its host is no valid international name") from None


def _read_v4(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise _RefusedError("its host is an address in an odd spelling; write four decimal numbers") from None


def _read_v6(text: str) -> str:
    if "%" in text or not text.isascii():
        raise _RefusedError("its host is an address with a zone, or in an odd spelling")
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise _RefusedError("its host is no valid IPv6 address") from None


def _read_target(text: str) -> str:
    if _NOT_IN_TARGET.search(text):
        raise _RefusedError("it holds a % that begins no escape such as %20")
    try:
        target = quote(text, safe=_TARGET_SAFE)
    except UnicodeEncodeError:
        raise _RefusedError("it holds half a character (a lone surrogate)") from None
    return target if target.startswith("/") else f"/{target}"


# --- addresses ---


def _meant(address: Address) -> Iterator[Address]:
    """The addresses that a connection to *address* may end at: itself, or the IPv4 one that it carries."""
    if address.version == 4:
        yield address
        return
    number = int(address)
    if address in _MAPPED or address in _NAT64:
        yield ipaddress.IPv4Address(number & 0xFFFF_FFFF)
        return
    yield address
    if address in _6TO4:
        yield ipaddress.IPv4Address(number >> 80 & 0xFFFF_FFFF)
    if number >> 32 & 0xFFFF_FFFF in _ISATAP:
        yield ipaddress.IPv4Address(number & 0xFFFF_FFFF)


def _is_public(address: Address) -> bool:
    # is_global differs between versions of Python, and counts multicast, ::8.8.8.8 and fec0::/10 as global. So it can
    # only refuse more here; the ranges above are what is relied upon.
    if any(address in network for network in _NOT_PUBLIC if network.version == address.version):
        return False
    if isinstance(address, ipaddress.IPv6Address) and address not in _PUBLIC_V6:
        return False
    return address.is_global or address in _6TO4


# --- settings ---


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(f"outbound.allowed_networks: {error}; {_instead_of(text)}") from None


def _instead_of(text: str) -> str:
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return "write one such as 10.1.2.0/24"
    return f"write {meant} for all of it, or {text.partition('/')[0]} for this one address"


def _hosts(texts: Sequence[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    names, suffixes = set(), []
    for text in texts:
        try:
            if text.startswith("*."):
                suffixes.append(f".{_read_host(text[2:])}")
            else:
                names.add(_read_host(f"[{text}]" if ":" in text and not text.startswith("[") else text))
        except _RefusedError as error:
            wanted = "write hooks.example.com or *.example.com"
            told = f"a URL and no host; {wanted}" if "://" in text else f"no host ({error}); {wanted}"
            raise ConfigError(f"outbound.allowed_hosts: {text!r} is {told}") from None
    return frozenset(names), tuple(suffixes)
