"""Names to addresses, on threads of our own: a name server that hangs must neither hold up others nor our end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence

from dumbwaiter.errors import OutboundError
from dumbwaiter.outbound.guard import Address

Resolve = Callable[[str], Awaitable[Sequence[Address]]]
"""From a name to all of its addresses. Raises OutboundError."""

_AT_ONCE = 256
"""Far more than are asked for at once: one that hangs goes on for a while after nobody waits for it any more."""


class Resolver:
    """Asks the system, as all its programs do: /etc/hosts, then DNS. At most so many look-ups run at once."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def __call__(self, host: str) -> Sequence[Address]:
        """The addresses of *host*. Raises OutboundError, naming the host."""
        await self._free.acquire()
        future: asyncio.Future[Sequence[Address]] = asyncio.get_running_loop().create_future()
        # Only daemon threads die with the process: executors wait at its end for look-ups that take half a minute.
        thread = threading.Thread(target=self._look_up, args=(host, future), name="dumbwaiter-resolve", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._free.release()
            raise OutboundError(f"the host {host!r} cannot be resolved now: {error}", transient=True) from None
        return await future

    def _look_up(self, host: str, future: asyncio.Future[Sequence[Address]]) -> None:
        found: Sequence[Address] | OutboundError
        try:
            found = _addresses(host)
        except (OSError, ValueError) as error:
            found = OutboundError(f"the host {host!r} cannot be resolved: {_why(error)}", transient=True)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits
            future.get_loop().call_soon_threadsafe(self._tell, future, found)

    def _tell(self, future: asyncio.Future[Sequence[Address]], found: Sequence[Address] | OutboundError) -> None:
        self._free.release()
        if future.done():  # nobody waits any more
            return
        if isinstance(found, OutboundError):
            future.set_exception(found)
        else:
            future.set_result(found)


def _addresses(host: str) -> Sequence[Address]:
    entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # A zone (fe80::1%eth0) is cut off: what needs one is link-local, and refused.
    return list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in entries))


def _why(error: Exception) -> str:
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)
