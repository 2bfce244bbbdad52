"""Reading no further while a caller is owed many responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.flow_control import FlowControl

if TYPE_CHECKING:
    from collections.abc import Sized

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
