"""``dumbwaiter.cloud.cloud_run:app``: the gateway as a plain ASGI application, for a server of your own choice.

``dumbwaiter gateway --host 0.0.0.0 --port $PORT`` is better: it has the limits and the ending that a foreign server
lacks (docs/cloud-doors.md).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dumbwaiter.cloud.adapted import refuse
from dumbwaiter.cloud.kept import KeptGateway
from dumbwaiter.config import load_settings
from dumbwaiter.errors import DumbwaiterError
from dumbwaiter.observe import configure_logging

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from dumbwaiter.config import Settings


class AsgiGateway:
    """The ASGI application: the gateway of *settings*, opened at start-up, or by the first request of a server that
    knows no lifespan.
    """

    def __init__(self, settings: Settings) -> None:
        self._kept = KeptGateway(settings, max_patience=math.inf)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            try:
                app = await self._kept.app()
            except DumbwaiterError as error:
                await refuse(send, error)
                return
            await app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._kept.app()
        except DumbwaiterError as error:
            await send({"type": "lifespan.startup.failed", "message": f"dumbwaiter: {error}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._kept.close()
        await send({"type": "lifespan.shutdown.complete"})


def _app() -> AsgiGateway:
    settings = load_settings()
    configure_logging(
        level=settings.log_level, log_format="json" if settings.log_format == "auto" else settings.log_format
    )
    return AsgiGateway(settings)


app = _app()
