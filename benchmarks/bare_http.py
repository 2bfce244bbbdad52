"""The reference for REST: the same server and framework as the gateway's, and a handler that only echoes."""

from __future__ import annotations

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dumbwaiter.config import GatewaySettings
from dumbwaiter.gateway.connection import make_protocol
from dumbwaiter.gateway.server import _listen, _tune_garbage_collection


class Echo:
    """Read the body, send it back."""

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body", False):
                break
        headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def main() -> None:
    """Serve on a free port, which is printed."""
    app = Starlette(routes=[Route("/v1/models/{model}/predictions", Echo(), methods=["POST"])])
    listener = _listen("127.0.0.1", 0)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, http=make_protocol(GatewaySettings()), ws="none", access_log=False, log_config=None)
    _tune_garbage_collection()
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    uvloop.run(main())
