"""The verbs of KEDA's external scaler, from the bytes of a request to those of what is answered.

KEDA calls IsActive and GetMetrics at every poll. For a trigger of type external-push it keeps a StreamIsActive open,
acts on a ``true`` there at once, and leaves ``false`` to its polls and cooldown.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from dumbwaiter.errors import ConfigError
from dumbwaiter.scaler import protocol
from dumbwaiter.scaler.asking import trigger
from dumbwaiter.scaler.following import is_active

if TYPE_CHECKING:
    from dumbwaiter.scaler.pools import Pool, Pools

Send = Callable[[bytes], Awaitable[object]]


def metric_name(model: str) -> str:
    """The name of the one metric; KEDA puts a prefix before it and takes it off again."""
    return f"dumbwaiter-{model}"


class ExternalScaler:
    """What is asked of *pools*.

    The verbs raise ConfigError, NoSuchModelError, BrokerError, BlobError, SignalUnknownError, TooSlowError: where there
    is no telling, KEDA's fallback is better than any number.
    """

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    async def is_active(self, request: bytes) -> bytes:
        """Whether there must be a worker at all."""
        return protocol.is_active_response(is_active(await self._pool(request).view()))

    async def stream_is_active(self, request: bytes, send: Send) -> None:
        """The same now and at each change, until the scaler stops."""
        with self._pool(request).activity.followed() as follower:
            while (active := await follower.next()) is not None:
                await send(protocol.is_active_response(active))
        # Returning, rather than failing, makes KEDA come back after 2 s instead of up to a minute.

    async def get_metric_spec(self, request: bytes) -> bytes:
        """What GetMetrics tells. The broker is not asked: KEDA needs it also while that is down."""
        return self._spec(request)

    async def stream_metric_spec(self, request: bytes, send: Send) -> None:
        """The same at once. It never changes, so then the stream rests until the scaler stops."""
        await send(self._spec(request))
        await self._pools.closing.wait()

    async def get_metrics(self, request: bytes) -> bytes:
        """How many workers this look asks for. Kubernetes smooths by itself."""
        ref, wanted = protocol.metric_wanted(request)
        pool = self._pools.of(trigger(ref.metadata).metadata)
        name = metric_name(pool.model)
        if wanted not in {name, ""}:
            raise ConfigError(f"there is no metric {wanted!r}; model {pool.model!r} has one: {name}")
        return protocol.metrics_response(name, (await pool.view()).decision.raw)

    def _pool(self, request: bytes) -> Pool:
        return self._pools.of(trigger(protocol.reference(request).metadata).metadata)

    def _spec(self, request: bytes) -> bytes:
        """The metric counts workers and its target is how many a pod has: Kubernetes divides, and rounds up."""
        metadata, each = trigger(protocol.reference(request).metadata)
        return protocol.metric_spec_response(metric_name(self._pools.of(metadata).model), each)
