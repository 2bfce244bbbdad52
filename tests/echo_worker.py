"""A worker in a few lines, by the contract's verbs alone: what gateways and clients are tested against."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence

from dumbwaiter.answers import failed, is_kept, succeeded
from dumbwaiter.blobs.claimcheck import check_in, check_out, drop
from dumbwaiter.blobs.results import save_result
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.errors import InboxGoneError
from dumbwaiter.message import Failure, Message, Timings

Respond = Callable[[Message], Message]
TIMINGS = Timings(queued=0.001, batched=0.002, device=0.003, batch_size=4)


def echo(request: Message) -> Message:
    return succeeded(request, body=request.body, content_type=request.content_type or "text/plain", timings=TIMINGS)


def output(body: bytes, content_type: str) -> Respond:
    return lambda request: succeeded(request, body=body, content_type=content_type, timings=TIMINGS)


def failure(code: str, message: str, detail: str = "") -> Respond:
    return lambda request: failed(request, Failure(code=code, message=message, detail=detail, attempts=2))


class EchoWorker:
    """What it saw: *requests* in order, as they came over the queue."""

    def __init__(self, broker: Broker, queue: str, respond: Respond, store: BlobStore | None) -> None:
        self.requests: list[Message] = []
        self._broker = broker
        self._queue = queue
        self._respond = respond
        self._store = store

    async def serve(self) -> None:
        while True:
            deliveries = await self._broker.receive(self._queue, max_messages=64, max_wait=5.0)
            await self._answer([delivery.message for delivery in deliveries])
            await self._broker.complete(deliveries)

    async def _answer(self, requests: Sequence[Message]) -> None:
        self.requests += requests
        replies: defaultdict[str, list[Message]] = defaultdict(list)
        for request in requests:
            whole = await check_out(self._store, request) if self._store else request
            answer = self._respond(whole)
            if self._store and is_kept(request):
                answer = await save_result(self._store, request.id, answer, threshold=64 * 1024)
            if self._store and request.reply_to:
                answer = await check_in(self._store, answer, threshold=64 * 1024)
            if self._store:
                await drop(self._store, request)
            if request.reply_to:
                replies[request.reply_to].append(answer)
        for address, answers in replies.items():
            with contextlib.suppress(InboxGoneError):
                await self._broker.reply(address, answers)


@contextlib.asynccontextmanager
async def serving(
    broker: Broker, queue: str = "echo", respond: Respond = echo, store: BlobStore | None = None
) -> AsyncIterator[EchoWorker]:
    await broker.create_queue(queue)
    worker = EchoWorker(broker, queue, respond, store)
    task = asyncio.create_task(worker.serve())
    try:
        yield worker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
