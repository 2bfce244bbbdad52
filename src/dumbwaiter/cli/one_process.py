"""``dumbwaiter serve --broker memory:``: gateway and workers as tasks of one process, around one broker object."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

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


class OneProcess:
    """Runs all until *stop* is set; *hurry* shortens the stopping. Nothing is restarted here: an error ends it."""

    def __init__(self, settings: Settings, specs: Sequence[ModelSpec], audience: Audience, *, port: int) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self.children = [Child(Plan("gateway", "gateway", ()))]
        self.children += [Child(Plan(spec.name, spec.name, ())) for spec in specs]
        gateway = msgspec.structs.replace(settings.gateway, port=port, grace=gateway_grace(settings))
        self._settings = msgspec.structs.replace(settings, gateway=gateway)
        self._specs = specs
        self._audience = audience

    async def run(self) -> int:
        """Serve until told to stop; 0, or what a runtime that ended by itself returned or raised."""
        async with open_broker(self._settings.broker, lock_duration=self._settings.lock_duration) as broker:
            store = open_store(self._settings.blobs)
            stops = [asyncio.Event() for _ in self.children]
            tells = [self._tell(child) for child in self.children]
            tasks = [asyncio.create_task(run_gateway_with(self._settings, broker, store, tells[0], stops[0]))]
            for spec, tell, stop in zip(self._specs, tells[1:], stops[1:], strict=True):
                tasks.append(asyncio.create_task(run_worker_with(self._settings, spec, broker, store, tell, stop)))
            await _first([self.stop.wait(), *(asyncio.shield(task) for task in tasks)])
            stops[0].set()
            await self._finish(tasks[:1], gateway_grace(self._settings) + 3)
            for stop in stops[1:]:
                stop.set()
            await self._finish(tasks, self._settings.worker.grace + 5)
            return max((task.result() for task in tasks if not task.cancelled()), default=0)

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

    def _tell(self, child: Child) -> Tell:
        def tell(report: Report) -> None:
            child.report = report
            self._audience.reported(child)

        return tell


async def _first(waiting: Sequence[Coroutine[Any, Any, Any] | asyncio.Future[Any]]) -> None:
    tasks = [asyncio.ensure_future(one) for one in waiting]
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
