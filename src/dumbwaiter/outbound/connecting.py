"""The sockets of the outbound client: a name is resolved once, all its addresses are checked, one of them is used."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import httpcore

from dumbwaiter.errors import OutboundError
from dumbwaiter.outbound.guard import Address, AddressPolicy
from dumbwaiter.outbound.resolving import Resolve

_MOST_OF_A_FAMILY = 2
_NEXT_AFTER = 4.0
"""Seconds after which the next address is tried, where there is one."""


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that *policy* has checked, and never hands a name to anyone who would resolve it again.

    It remembers what it has opened until close(): a TLS handshake that is cancelled would leave its socket behind.
    """

    def __init__(self, policy: AddressPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        # Not the class that stands in for it where anyio is missing, which is all that type checkers may see.
        self._sockets = cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())
        self._opened: list[httpcore.AsyncNetworkStream] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to one of the addresses of *host*. Raises ForbiddenUrlError if even one of them is forbidden."""
        addresses = await self._addresses(host)
        # All before the first connection: a name that has a forbidden address beside a good one is up to something.
        for address in addresses:
            self._policy.check_address(address)
        failure: Exception | None = None
        chosen = _some_of_each_family(addresses)
        for address in chosen:
            patience = timeout if address is chosen[-1] else _NEXT_AFTER
            try:
                stream = await self._sockets.connect_tcp(str(address), port, patience, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                self._opened.append(stream)
                return stream
        raise failure or OutboundError(f"the host {host!r} has no address", transient=True)

    async def close(self) -> None:
        """Close all that was opened."""
        while self._opened:
            await self._opened.pop().aclose()

    async def _addresses(self, host: str) -> Sequence[Address]:
        try:
            return [ipaddress.ip_address(host)]
        except ValueError:
            return await self._resolve(host)


def _some_of_each_family(addresses: Sequence[Address]) -> Sequence[Address]:
    """The first few, in the resolver's order; the other family is among them when all of one are out of reach."""
    families = [[one for one in addresses if one.version == version][:_MOST_OF_A_FAMILY] for version in (4, 6)]
    return [one for one in addresses if any(one in family for family in families)]


def why_no_answer(error: Exception) -> str:
    """What to tell of an error of httpcore. Its own text may hold an address that the caller never named."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate was not accepted: {cause.verify_message}"
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return "the encrypted connection failed"
    if isinstance(error, (httpcore.ConnectError, httpcore.ConnectTimeout)):
        return "it cannot be connected to"
    if isinstance(error, httpcore.ProtocolError):
        return f"what it answered is not HTTP/1.1 as it should be: {error}"
    return "the connection broke before the answer was complete"


def _causes(error: BaseException) -> Iterator[BaseException]:
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__ or following.__context__
