"""What a caller is owed: while that is much nothing more is read, and when it has gone the application is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.flow_control import FlowControl

from dumbwaiter.gateway.http.sending import HANG_UPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sized

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

MOST_OWED = 16
"""What a caller sends is parsed no further while it is owed so many responses."""


class Flow(FlowControl):
    """uvicorn's, which does not read on while *owed* is long: whoever pipelines faster than it is answered waits."""

    def __init__(self, transport: Any, owed: Sized) -> None:
        super().__init__(transport)
        self._owed = owed

    def resume_reading(self, *, whatever_is_owed: bool = False) -> None:
        if whatever_is_owed or len(self._owed) < MOST_OWED:
            super().resume_reading()


def tell_gone(cycles: Iterable[RequestResponseCycle]) -> None:
    """Tell the application, for each of these responses that it owes, that nobody is there to receive it."""
    for cycle in cycles:
        cycle.disconnected = True
        cycle.message_event.set()
        for tell in cast("dict[str, Any]", cycle.scope).pop(HANG_UPS, ()):  # they hear of it once
            tell()
