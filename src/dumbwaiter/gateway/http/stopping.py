"""The gateway is told to stop: those who follow or look are let go at once, and go on at another gateway."""

from __future__ import annotations

import asyncio


class Stopping:
    """A moment that comes once. Whoever waits for something else waits for it as well."""

    def __init__(self) -> None:
        self._come: asyncio.Future[None] | None = None
        self.has_come = False

    def come(self) -> None:
        """Now. A second time is no error."""
        self.has_come = True
        if self._come is not None and not self._come.done():
            self._come.set_result(None)

    @property
    def future(self) -> asyncio.Future[None]:
        """Done when it has come; of the running loop."""
        if self._come is None:
            self._come = asyncio.get_running_loop().create_future()
            if self.has_come:
                self._come.set_result(None)
        return self._come
