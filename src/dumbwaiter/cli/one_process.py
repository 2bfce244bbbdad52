"""``dumbwaiter serve --broker memory:``: gateway and workers as tasks of one process, around one broker object."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.cli.runtimes import run_gateway_with, run_worker_with
from dumbwaiter.cli.supervisor import Audience, Child, Plan, gateway_grace

if TYPE_CHECKING:
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
        self.children = [Child(Plan("gateway", None, ()))]
        self.children += [Child(Plan(spec.name, spec.name, ())) for spec in specs]
        gateway = msgspec.structs.replace(settings.gateway, port=port, grace=gateway_grace(settings))
        self._settings = msgspec.structs.replace(settings, gateway=gateway)
        self._specs = specs
        self._audience = audience

    async def run(self) -> int:
        """Serve until told to stop: 0. A runtime that ends by itself, whatever for, ends all: 1."""
        async with open_broker(self._settings.broker, lock_duration=self._settings.lock_duration) as broker:
            store = open_store(self._settings.blobs)
            stops = [asyncio.Event() for _ in self.children]
            tells = [self._tell(child) for child in self.children]
            tasks = [asyncio.create_task(run_gateway_with(self._settings, broker, store, tells[0], stops[0]))]
            for spec, tell, stop in zip(self._specs, tells[1:], stops[1:], strict=True):
                tasks.append(
                    asyncio.create_task(run_worker_with(self._settings, spec, broker, store, tell, stop, self.hurry))
                )
            stopping = asyncio.create_task(self.stop.wait())
            await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            ended = [self._tell_end(child, task) for child, task in zip(self.children, tasks, strict=True)]
            stops[0].set()
            await self._finish(tasks[:1], gateway_grace(self._settings) + 3)
            for stop in stops[1:]:
                stop.set()
            await self._finish(tasks, self._settings.worker.grace + 5)
            return 1 if any(ended) else 0

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
