"""The reference for REST: the same server and framework as the gateway's, and a handler that only echoes."""

from __future__ import annotations

import gc
import socket

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def echo(request: Request) -> Response:
    """Send the body back."""
    return Response(await request.body(), media_type="application/octet-stream")


async def main() -> None:
    """Serve on a free port, which is printed."""
    app = Starlette(routes=[Route("/v1/models/{model}/predictions", echo, methods=["POST"])])
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, http="httptools", ws="none", access_log=False, log_config=None, proxy_headers=False)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    uvloop.run(main())
