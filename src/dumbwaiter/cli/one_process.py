"""``dumbwaiter serve --broker memory:``: gateway, workers and courier as tasks of one process, around one broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.cli.courier import run_courier_with
from dumbwaiter.cli.runtimes import run_gateway_with, run_worker_with
from dumbwaiter.cli.supervisor import Audience, Child, Plan, gateway_grace

if TYPE_CHECKING:
    from dumbwaiter.blobs import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.cli.runtimes import Tell
    from dumbwaiter.cli.status_pipe import Report
    from dumbwaiter.config import Settings
    from dumbwaiter.models.contract import ModelSpec

_log = logging.getLogger(__name__)


class OneProcess:
    """Runs all until *stop* is set; *hurry* shortens the stopping. Nothing is restarted here: an error ends all."""

    def __init__(self, settings: Settings, specs: Sequence[ModelSpec], audience: Audience, *, port: int) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self.children = [Child(Plan("gateway", None, (), role="gateway"))]
        self.children += [Child(Plan(spec.name, spec.name, ())) for spec in specs]
        self.children.append(Child(Plan("courier", None, (), role="courier")))
        gateway = msgspec.structs.replace(settings.gateway, port=port, grace=gateway_grace(settings))
        self._settings = msgspec.structs.replace(settings, gateway=gateway)
        self._specs = specs
        self._audience = audience

    async def run(self) -> int:
        """Serve until told to stop: 0. A runtime that ends by itself, whatever for, ends all: 1."""
        async with open_broker(self._settings.broker, lock_duration=self._settings.lock_duration) as broker:
            store = open_store(self._settings.blobs)
            stops = [asyncio.Event() for _ in self.children]
            tasks = self._start(broker, store, stops)
            stopping = asyncio.create_task(self.stop.wait())
            await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            ended = [self._tell_end(child, task) for child, task in zip(self.children, tasks, strict=True)]
            stops[0].set()
            await self._finish(tasks[:1], gateway_grace(self._settings) + 3)
            for stop in stops[1:-1]:
                stop.set()
            await self._finish(tasks[:-1], self._settings.worker.grace + 5)
            # Last: it still delivers what the workers have put on its queue, which ends with this process.
            stops[-1].set()
            await self._finish(tasks, self._settings.courier.grace + 5)
            return 1 if any(ended) else 0

    def _start(self, broker: Broker, store: BlobStore, stops: Sequence[asyncio.Event]) -> list[asyncio.Task[int]]:
        """All runtimes, in the order of the children."""
        settings, tells = self._settings, [self._tell(child) for child in self.children]
        runtimes = [run_gateway_with(settings, broker, store, tells[0], stops[0])]
        for spec, tell, stop in zip(self._specs, tells[1:-1], stops[1:-1], strict=True):
            runtimes.append(run_worker_with(settings, spec, broker, store, tell, stop, self.hurry))
        runtimes.append(run_courier_with(settings, broker, store, tells[-1], stops[-1], self.hurry))
        return [asyncio.create_task(runtime) for runtime in runtimes]

    async def _finish(self, tasks: list[asyncio.Task[int]], patience: float) -> None:
        """Wait for *tasks*, at most *patience* seconds or until hurried; then cancel them."""
        hurried = asyncio.create_task(self.hurry.wait())
        gone = asyncio.ensure_future(asyncio.wait(tasks))
        await asyncio.wait({hurried, gone}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        gone.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def _tell_end(self, child: Child, task: asyncio.Task[int]) -> bool:
        """Tell why *task* has ended by itself, if it has."""
        if self.stop.is_set() or not task.done():
            return False
        error = task.exception()
        if error is not None:
            _log.error("%s failed", child.plan.name, exc_info=error)
        self._audience.died(child, f"failed: {error}" if error else "ended by itself", None)
        return True

    def _tell(self, child: Child) -> Tell:
        def tell(report: Report) -> None:
            child.report = report
            self._audience.reported(child)

        return tell
