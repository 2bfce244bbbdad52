"""Workers in a thread of their own, as another process would be, so that blocking callers can be tested."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

from dumbwaiter.answers import succeeded
from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.config import GatewaySettings
from dumbwaiter.gateway import run_gateway
from dumbwaiter.message import Message, Timings
from dumbwaiter.testing import eventually
from echo_worker import failure, serving


class Service:
    """Serves ``echo`` and ``fail``; nobody serves ``silent``. *broker* and *store* are of the thread's event loop."""

    def __init__(self, url: str, blobs: str) -> None:
        self.url = url
        self.blobs = blobs
        self.requests: list[Message] = []
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Service:
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run *work* in the thread's event loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def until(self, probe: Any) -> None:
        """Wait until *probe*, called in the thread's event loop, is true."""
        self.run(eventually(probe))

    def until_waiting(self, count: int) -> None:
        """Wait until *count* messages wait in ``silent``."""

        async def are_waiting() -> bool:
            return (await self.broker.stats("silent")).ready == count

        self.until(are_waiting)

    def newest_silent(self) -> str:
        """The id of the last message that was sent to ``silent``; it waits on."""

        async def look() -> str:
            deliveries = await self.broker.receive("silent", max_messages=100, max_wait=5)
            await self.broker.abandon(deliveries)
            return max((delivery.message for delivery in deliveries), key=lambda message: message.time or 0.0).id

        return self.run(look())

    def answer_silent(self, count: int = 1, *, backwards: bool = False) -> None:
        """Do the work of *count* messages in ``silent``, each answered with its own body."""

        async def answer() -> None:
            deliveries = []
            while len(deliveries) < count:
                deliveries += await self.broker.receive("silent", max_messages=count - len(deliveries), max_wait=5)
            for delivery in reversed(deliveries) if backwards else deliveries:
                request = delivery.message
                answer = succeeded(request, body=request.body, content_type=request.content_type, timings=Timings())
                await self.broker.reply(request.reply_to, [answer])
            await self.broker.complete(deliveries)

        self.run(answer())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.store = open_store(self.blobs)
        async with contextlib.AsyncExitStack() as stack:
            self.broker = await stack.enter_async_context(open_broker(self.url))
            await self.broker.create_queue("silent")
            worker = await stack.enter_async_context(serving(self.broker, store=self.store))
            refuse = failure("model-error", "I do not like this one")
            await stack.enter_async_context(serving(self.broker, "fail", refuse, self.store))
            self.requests = worker.requests
            self._started.set()
            await self._stop.wait()


@contextlib.contextmanager
def gateway_before(service, **options):
    """A real gateway in the thread of *service*."""
    listening = threading.Event()
    ports = []

    async def start():
        stop = asyncio.Event()
        settings = GatewaySettings(**{"port": 0, "grace": 0.5, **options})

        def announce(_host, port):
            ports.append(port)
            listening.set()

        task = asyncio.create_task(run_gateway(service.broker, service.store, settings, stop=stop, on_ready=announce))
        task.add_done_callback(lambda _: listening.set())
        return stop, task

    async def end():
        stop.set()
        assert await task == 0

    stop, task = service.run(start())
    assert listening.wait(20)
    assert ports, task.exception()
    try:
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        service.run(end())
