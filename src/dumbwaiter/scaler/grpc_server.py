"""The scaler's gRPC server: the one file of the scaler that imports grpc."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn

from dumbwaiter.errors import ConfigError, MissingExtraError
from dumbwaiter.scaler.protocol import SERVICE
from dumbwaiter.scaler.refusing import refusal_of

try:
    import grpc
    import grpc.aio
except ModuleNotFoundError as error:
    raise MissingExtraError("grpc", "scaler", "grpcio") from error

if TYPE_CHECKING:
    from dumbwaiter.scaler.certificate import Certificate
    from dumbwaiter.scaler.service import ExternalScaler, Send

Context = Any  # grpc.aio.ServicerContext, which is generic in types that we keep as bytes

MOST_CALLS = 4000
"""At once, streams among them: KEDA keeps two open for each ScaledObject."""
LAST_WORDS = 1.0
"""Seconds for calls under way to end in once the server stops."""
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # or a second scaler would take half of the calls in silence
    ("grpc.max_receive_message_length", 64 * 1024),
    # A client that went away without a word is noticed, and what its streams hold is freed.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # or the answer to a ping is waited for a minute, whatever stands above
    ("grpc.http2.max_pings_without_data", 0),  # as many as it takes
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)
_log = logging.getLogger("dumbwaiter.scaler")


class GrpcServer:
    """Serves *scaler* on *host* and *port* (0: any free one); *port* is the true one once it is made.

    Raises ConfigError when it cannot listen there. Make it within a running event loop.
    """

    def __init__(self, scaler: ExternalScaler, host: str, port: int, certificate: Certificate | None) -> None:
        self._server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MOST_CALLS)
        verbs = {
            "IsActive": _answering(scaler.is_active),
            "StreamIsActive": _streaming(scaler.stream_is_active),
            "GetMetricSpec": _answering(scaler.get_metric_spec),
            "StreamMetricSpec": _streaming(scaler.stream_metric_spec),
            "GetMetrics": _answering(scaler.get_metrics),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, verbs),))
        address = f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
        try:
            if certificate is None:
                self.port: int = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, _credentials(certificate))
        except RuntimeError as error:
            raise ConfigError(
                f"cannot listen on {host} port {port} for gRPC: it is in use, or not to be had"
            ) from error

    async def start(self) -> None:
        """Take calls."""
        await self._server.start()

    async def stop(self) -> None:
        """Take no more calls, and break off after LAST_WORDS those that have not ended."""
        await self._server.stop(LAST_WORDS)


def _credentials(certificate: Certificate) -> grpc.ServerCredentials:
    def loaded() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([certificate.key_and_chain])

    # It is asked at each handshake, so that a renewed certificate needs no restart.
    return grpc.dynamic_ssl_server_credentials(loaded(), loaded)


def _answering(verb: Callable[[bytes], Awaitable[bytes]]) -> grpc.RpcMethodHandler[bytes, bytes]:
    async def call(request: bytes, context: Context) -> bytes:
        try:
            return await verb(request)
        except Exception as error:  # also one that is our own fault: nothing else would be told to KEDA as an error
            await _refuse(context, error)

    return grpc.unary_unary_rpc_method_handler(call)


def _streaming(verb: Callable[[bytes, Send], Awaitable[None]]) -> grpc.RpcMethodHandler[bytes, bytes]:
    async def call(request: bytes, context: Context) -> None:
        try:
            await verb(request, context.write)
        except Exception as error:  # as above
            await _refuse(context, error)

    return grpc.unary_stream_rpc_method_handler(call)


async def _refuse(context: Context, error: Exception) -> NoReturn:
    refusal = refusal_of(error)
    if refusal.grpc == "INTERNAL":
        _log.error("a call failed", exc_info=error)
    await context.abort(grpc.StatusCode[refusal.grpc], refusal.detail)
    raise AssertionError("abort raises")
