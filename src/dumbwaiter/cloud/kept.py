"""One gateway for as long as the process lives, where the event loop runs all the time: Azure Functions, Cloud Run."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from dumbwaiter.cloud.backend import Backend

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from dumbwaiter.config import Settings


class KeptGateway:
    """The gateway of *settings*, opened when it is first needed. Nobody waits there for more than *max_patience*
    seconds.
    """

    def __init__(self, settings: Settings, *, max_patience: float) -> None:
        self._backend = Backend(settings)
        self._max_patience = max_patience
        self._opening = asyncio.Lock()
        self._stack = contextlib.AsyncExitStack()
        self._app: ASGIApp | None = None

    async def app(self) -> ASGIApp:
        """Its ASGI application, open. Raises ConfigError, BrokerError, BlobError; the next call tries again then."""
        async with self._opening:
            if self._app is None:
                gateway = self._backend.gateway(await self._backend.opened(), max_patience=self._max_patience)
                # Once open its adapter keeps the connection by itself: nothing freezes here.
                await self._stack.enter_async_context(gateway.serving())
                self._app = gateway.app
            return self._app

    async def close(self) -> None:
        """Close it with all that it has opened. Twice is no error."""
        async with self._opening:
            self._app = None
            await self._stack.aclose()
            await self._backend.close()
