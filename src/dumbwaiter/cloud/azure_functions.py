"""``dumbwaiter.cloud.azure_functions.app``: the gateway as a function app, by the ASGI adapter of azure-functions.

In function_app.py: ``from dumbwaiter.cloud.azure_functions import app``. In host.json the routePrefix must be empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dumbwaiter.cloud.adapted import refuse, serve
from dumbwaiter.cloud.kept import KeptGateway
from dumbwaiter.config import load_settings
from dumbwaiter.errors import DumbwaiterError, MissingExtraError

try:
    import azure.functions as func
except ModuleNotFoundError as missing:
    raise MissingExtraError("azure.functions", "azure-functions", "azure-functions") from missing

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from dumbwaiter.config import Settings

ANSWER_WITHIN = 225.0
"""Azure's load balancer gives up after 230 seconds.
Source: https://learn.microsoft.com/azure/azure-functions/functions-scale#timeout
"""


class AsgiGateway:
    """The ASGI application: the gateway of *settings*, opened by its first request."""

    def __init__(self, settings: Settings) -> None:
        self._kept = KeptGateway(settings, max_patience=ANSWER_WITHIN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            # The adapter may start us twice, when two requests come first; and ends us in another event loop, where
            # nothing of ours could be closed, but only if we have not ended by ourselves.
            await receive()
            await send({"type": "lifespan.startup.complete"})
            return
        try:
            app = await self._kept.app()
        except DumbwaiterError as error:
            await refuse(send, error)
            return
        await serve(app, scope, receive, send, within=ANSWER_WITHIN)

    async def close(self) -> None:
        """Close the gateway. Azure never does, and need not."""
        await self._kept.close()


# Callers show our API keys; Azure's would be a second one.
app = func.AsgiFunctionApp(app=AsgiGateway(load_settings()), http_auth_level=func.AuthLevel.ANONYMOUS)
