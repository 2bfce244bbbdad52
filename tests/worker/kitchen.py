"""A worker in the test's own event loop, over the memory broker, with a model written by the test."""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dumbwaiter.answers import failed, failure_of
from dumbwaiter.asking import Asker
from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.presence import WorkerStatus
from dumbwaiter.blobs.results import load_result, save_result
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.config import OutboundSettings, WorkerSettings
from dumbwaiter.devices.admission import Admission
from dumbwaiter.errors import BlobNotFoundError
from dumbwaiter.message import Failure, Message
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.testing import eventually
from dumbwaiter.worker.consumer import Consumer

QUEUE = "dish"

SHOUT = """
class Model:
    def __call__(self, text: str) -> str:
        return text.upper()
"""

BATCHED = """
import os, signal, time

class Model:
    max_batch = 8

    def __call__(self, texts: list[str]) -> list[str]:
        time.sleep(0.05)
        if "segfault" in texts:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "exit" in texts:
            os._exit(3)
        if "hang" in texts:
            time.sleep(1000)
        if "raise" in texts:
            raise ValueError("I do not like this one")
        if "short" in texts:
            return texts[:-1]
        return [ValueError("not this place") if text == "place" else f"{len(texts)}:{text}" for text in texts]
"""


@dataclass
class Kitchen:
    """What a test needs of a running worker."""

    broker: Broker
    store: BlobStore
    asker: Asker
    consumer: Consumer
    stop: asyncio.Event
    hurry: asyncio.Event
    retire: asyncio.Event
    running: asyncio.Task[None]
    statuses: list[WorkerStatus] = field(default_factory=list)

    async def ask(self, text: str, *, timeout: float = 20.0, **attributes: Any) -> Message:
        message = Message(body=text.encode(), content_type="text/plain", **attributes)
        return await self.asker.ask(QUEUE, message, timeout=timeout)

    async def output(self, text: str, **attributes: Any) -> str:
        answer = await self.ask(text, **attributes)
        assert failure_of(answer) is None, failure_of(answer)
        return answer.body.decode()

    async def failure(self, text: str, **attributes: Any) -> Failure:
        failure = failure_of(await self.ask(text, **attributes))
        assert failure is not None, "it succeeded"
        return failure

    async def send(self, text: str, id_: str, **attributes: Any) -> None:
        """A request that nobody waits for: its answer is kept."""
        await self.broker.send(QUEUE, [Message(id=id_, body=text.encode(), content_type="text/plain", **attributes)])

    async def cancel(self, id_: str) -> Message:
        """As a gateway does it; the result that stands then."""
        said = failed(Message(id=id_), Failure(code="canceled", message="cancelled by its caller"))
        return await save_result(self.store, id_, said, threshold=10_000)

    async def result(self, id_: str, *, within: float = 20.0) -> Message:
        async def there() -> Message | None:
            with contextlib.suppress(BlobNotFoundError):
                return await load_result(self.store, id_)
            return None

        answer = await eventually(there, within=within, what=f"a result of {id_}")
        assert answer is not None
        return answer

    async def is_empty(self) -> bool:
        stats = await self.broker.stats(QUEUE)
        return stats.ready + stats.locked + stats.delayed == 0

    @property
    def states(self) -> list[str]:
        return [status.state for status in self.statuses]

    @property
    def runner_pid(self) -> int:
        runner = self.consumer._keeper._runner
        assert runner is not None
        return runner.pid


@contextlib.asynccontextmanager
async def kitchen(
    folder: Path,
    code: str,
    *,
    broker_url: str = "memory:",
    lock_duration: float = 30.0,
    options: WorkerSettings | None = None,
    wait_ready: bool = True,
    broker: Broker | None = None,
    store: BlobStore | None = None,
    admission: Admission | None = None,
    outbound: OutboundSettings | None = None,
    **spec: Any,
) -> AsyncIterator[Kitchen]:
    """Serve class Model from *code*; ends the worker as SIGTERM would."""
    (folder / "network.py").write_text(textwrap.dedent(code))
    store = store or open_store(f"file://{folder}/blobs")
    broker = broker or open_broker(broker_url, lock_duration=lock_duration)
    async with broker, Asker(broker, store) as asker:
        statuses: list[WorkerStatus] = []
        model = ModelSpec(name=QUEUE, target="network:Model", project=str(folder), **spec)
        consumer = Consumer(
            *(broker, store, model, options or WorkerSettings()),
            outbound=outbound or OutboundSettings(),
            admission=admission,
            on_status=statuses.append,
        )
        stop, hurry, retire = asyncio.Event(), asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(consumer.run(stop, hurry=hurry, retire=retire))
        it = Kitchen(broker, store, asker, consumer, stop, hurry, retire, running, statuses)
        try:
            if wait_ready:
                await eventually(lambda: "ready" in it.states, within=20.0, what="the model being ready")
            yield it
        finally:
            stop.set()
            if not running.cancelled():
                await running
