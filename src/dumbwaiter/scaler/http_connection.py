"""One connection of the scaler's HTTP server: uvicorn's protocol with the limits that it lacks.

uvicorn waits for ever for the first head and for whoever does not read, and reads heads of any size. Here it is always
clear whose turn it is, a caller has TURN seconds for its own, and at the cap the longest idle connection makes room.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

TURN = 10.0
"""Seconds that a caller has to ask, with a whole head, and to take what it is answered."""
LONGEST_HEAD = 64 * 1024
"""Bytes that are read of a caller who has asked nothing yet."""


class Connection(HttpToolsProtocol):
    """Made by uvicorn for each connection. Use make_protocol() for a subclass that knows how many there may be."""

    most: int
    idle_since: float | None = None
    """Since when nothing is asked here, on the loop's clock; None while something is."""
    _turn: asyncio.TimerHandle | None = None
    _unasked_nbytes = 0

    # --- uvicorn's hooks ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()
        if len(self.connections) > self.most:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_turn()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.idle_since is not None:
            self._unasked_nbytes += len(data)
            if self._unasked_nbytes > LONGEST_HEAD:
                self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._begin_turn()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._take_turn()

    # --- httptools' callbacks ---

    def on_headers_complete(self) -> None:
        super().on_headers_complete()  # raises for a target that it cannot read
        self.idle_since = None
        self._take_turn()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # or else that of a request which was sent ahead is owed
            self._await_request()

    # --- whose turn it is ---

    def _await_request(self) -> None:
        self.idle_since = self.loop.time()
        self._unasked_nbytes = 0
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._end_turn()
        self._turn = self.loop.call_later(TURN, self.transport.abort)

    def _take_turn(self) -> None:
        """It is ours, if the caller has asked something and takes what it is answered."""
        if self.idle_since is None and not self.flow.write_paused:
            self._end_turn()

    def _end_turn(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _make_room(self) -> None:
        """Close the connection, but this one, that has been idle for longest, if one is."""
        others: list[Any] = [one for one in self.connections if one is not self and not one.transport.is_closing()]
        idle = [one for one in others if one.idle_since is not None]
        if idle:
            min(idle, key=lambda one: one.idle_since).transport.abort()


def make_protocol(most: int) -> type[Connection]:
    """The protocol class to give to uvicorn as ``http=``. Above *most* connections the longest idle one is closed."""
    return type("ScalerConnection", (Connection,), {"most": most})
