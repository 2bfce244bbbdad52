"""A product with a server of its own, as small as it gets: memory queues behind TCP, and the adapter that talks to it.

One connection carries one call: a frame with the request there, a frame with the answer back, then a single byte by
which the client confirms that it has the answer. Without that byte the server takes back what it had handed out.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any
from urllib.parse import urlsplit

import msgspec

from dumbwaiter import errors
from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION, Broker, Inbox
from dumbwaiter.brokers.findings import Finding
from dumbwaiter.brokers.memory import MemoryBroker, MemoryInbox
from dumbwaiter.errors import (
    BrokerClosedError,
    BrokerError,
    BrokerUnavailableError,
    DeadLetterNotFoundError,
    InboxGoneError,
    LockLostError,
    MessageTooLargeError,
)
from dumbwaiter.message import DeadLetter, Delivery, Message, QueueStats
from dumbwaiter.testing import ServerHarness

HOST = "127.0.0.1"
RECEIVED = b"r"

#: verb -> types of its arguments and of its result
VERBS: dict[str, tuple[Any, Any]] = {
    "check": (tuple[()], None),
    "create_queue": (tuple[str], None),
    "queues": (tuple[()], list[str]),
    "send": (tuple[str, list[Message], float], None),
    "receive": (tuple[str, int, float], list[Delivery]),
    "complete": (tuple[list[Delivery]], None),
    "abandon": (tuple[list[Delivery], float, bool], None),
    "dead_letter": (tuple[list[Delivery], str, str], None),
    "renew_lock": (tuple[list[Delivery]], list[Delivery]),
    "stats": (tuple[str], QueueStats),
    "position": (tuple[str, str], int | None),
    "dead_letters": (tuple[str, int, str | None], list[DeadLetter]),
    "redrive": (tuple[str, list[str] | None], int),
    "purge": (tuple[str, list[str] | None], int),
    "open_address": (tuple[()], str),
    "reply": (tuple[str, list[Message]], None),
    "read": (tuple[str, int, float], list[Message]),
    "close_inbox": (tuple[str], None),
    "close": (tuple[()], None),
}

#: the last arguments of these verbs go by name
KEYWORDS = {
    "send": ("delay",),
    "receive": ("max_messages", "max_wait"),
    "abandon": ("delay", "counted"),
    "dead_letter": ("reason", "detail"),
    "dead_letters": ("limit", "after"),
    "read": ("max_messages", "max_wait"),
}

pack = msgspec.msgpack.encode


class Request(msgspec.Struct):
    session: str
    lock_duration: float
    verb: str
    arguments: msgspec.Raw


class Answer(msgspec.Struct):
    result: msgspec.Raw = msgspec.Raw(pack(None))
    error: str | None = None
    text: str = ""
    lost: list[Delivery] = []
    renewed: list[Delivery] = []


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4)))


def frame(value: Any) -> bytes:
    body = pack(value)
    return len(body).to_bytes(4) + body


class Session(MemoryBroker):
    """What the server keeps of one client."""

    async def open_address(self) -> str:
        return (await self.open_inbox()).address

    async def read(self, address: str, *, max_messages: int, max_wait: float) -> list[Message]:
        return await self._inbox(address).receive(max_messages=max_messages, max_wait=max_wait)

    def unread(self, address: str, messages: list[Message]) -> None:
        line = self._inbox(address)._line
        with line.lock:
            line._give_back(messages)
            line.changed()

    async def close_inbox(self, address: str) -> None:
        await self._inbox(address).close()

    def _inbox(self, address: str) -> MemoryInbox:
        self._check_open()
        for inbox in self._inboxes:
            if inbox.address == address:
                return inbox
        raise InboxGoneError(address)


class TinyServer:
    """Listens on a port of its own. With *durable* its queues survive stop(), which is as sudden as kill -9."""

    def __init__(self, *, durable: bool = True) -> None:
        self.durable = durable
        self.port = 0
        self._queues = f"memory://{secrets.token_hex(8)}"

    async def start(self) -> None:
        if not self.durable:
            self._queues = f"memory://{secrets.token_hex(8)}"
        self._sessions: dict[str, Session] = {}
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._listener = await asyncio.start_server(self._connected, HOST, self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._listener.close()
        for task, writer in list(self._serving.items()):
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        for session in self._sessions.values():
            await session.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving[task] = writer
        task.add_done_callback(self._serving.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            request = msgspec.msgpack.decode(await read_frame(reader), type=Request)
            work = asyncio.create_task(self._answer(request))
            heard = asyncio.create_task(reader.read(1))
            try:
                await asyncio.wait([work, heard], return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    writer.write(frame(work.result()))
                    await heard
            finally:
                for task in (work, heard):
                    task.cancel()
                answer, said = await asyncio.gather(work, heard, return_exceptions=True)
                if isinstance(answer, Answer) and said != RECEIVED:
                    await self._take_back(request, answer)

    async def _answer(self, request: Request) -> Answer:
        session = self._sessions.get(request.session)
        if session is None:
            session = self._sessions[request.session] = Session(self._queues, lock_duration=request.lock_duration)
            await session.open()
        positional = msgspec.msgpack.decode(request.arguments, type=VERBS[request.verb][0])
        names = KEYWORDS.get(request.verb, ())
        split = len(positional) - len(names)
        keywords = dict(zip(names, positional[split:], strict=True))
        try:
            result = await getattr(session, request.verb)(*positional[:split], **keywords)
            return Answer(msgspec.Raw(pack(result)))
        except LockLostError as error:
            return Answer(error="LockLostError", lost=error.deliveries, renewed=error.renewed)
        except BrokerError as error:
            named = getattr(error, "queue", None) or getattr(error, "address", None)
            return Answer(error=type(error).__name__, text=named or str(error))

    async def _take_back(self, request: Request, answer: Answer) -> None:
        """The client left before it had this answer."""
        result = msgspec.msgpack.decode(answer.result, type=VERBS[request.verb][1])
        if not result or answer.error:
            return
        session = self._sessions[request.session]
        if request.verb == "receive":
            with contextlib.suppress(BrokerError):
                await session.abandon(result, counted=False)
        elif request.verb == "read":
            session.unread(msgspec.msgpack.decode(request.arguments)[0], result)


class ServedBroker(Broker):
    """The adapter of TinyServer. *url* is ``tiny://127.0.0.1:port``."""

    capabilities = msgspec.structs.replace(
        MemoryBroker.capabilities, durable=True, multi_process=True, max_message_nbytes=2 * 1024 * 1024
    )

    def __init__(self, url: str, *, lock_duration: float = DEFAULT_LOCK_DURATION) -> None:
        super().__init__(url, lock_duration=lock_duration)
        self._port = urlsplit(url).port
        self._session = secrets.token_hex(8)
        self._is_open = False

    async def call(self, verb: str, *arguments: Any) -> Any:
        """One call of the server."""
        if not self._is_open:
            raise BrokerClosedError
        request = Request(self._session, self.lock_duration, verb, msgspec.Raw(pack(arguments)))
        try:
            reader, writer = await asyncio.open_connection(HOST, self._port, limit=2**23)
            with contextlib.closing(writer):
                writer.write(frame(request))
                answer = msgspec.msgpack.decode(await read_frame(reader), type=Answer)
                writer.write(RECEIVED)  # and no await from here on: a cancelled call must not look like a received one
        except (OSError, asyncio.IncompleteReadError) as error:
            raise BrokerUnavailableError(f"no server at {self.url}: {error}; start it") from error
        if answer.error == "LockLostError":
            raise LockLostError(answer.lost, answer.renewed)
        if answer.error == "DeadLetterNotFoundError":
            raise DeadLetterNotFoundError(arguments[0], [arguments[-1]])
        if answer.error:
            raise getattr(errors, answer.error)(answer.text)
        return msgspec.msgpack.decode(answer.result, type=VERBS[verb][1])

    async def open(self):
        self._is_open = True
        await self.check()

    async def close(self):
        if self._is_open:
            with contextlib.suppress(BrokerUnavailableError):
                await self.call("close")
            self._is_open = False

    async def check(self):
        await self.call("check")

    async def examine(self, *, longest_run=None):
        await self.check()
        return [Finding(level="ok", subject="durability", text="its queues survive their server")]

    async def _create_queue(self, queue):
        await self.call("create_queue", queue)

    async def queues(self):
        return await self.call("queues")

    async def send(self, queue, messages, *, delay=0.0):
        for message in messages:
            if len(message.body) > self.capabilities.max_message_nbytes:
                raise MessageTooLargeError(len(message.body), self.capabilities.max_message_nbytes)
        await self.call("send", queue, messages, delay)

    async def receive(self, queue, *, max_messages, max_wait):
        return await self.call("receive", queue, max_messages, max_wait)

    async def complete(self, deliveries):
        await self.call("complete", deliveries)

    async def abandon(self, deliveries, *, delay=0.0, counted=True):
        await self.call("abandon", deliveries, delay, counted)

    async def dead_letter(self, deliveries, *, reason, detail=""):
        await self.call("dead_letter", deliveries, reason, detail)

    async def renew_lock(self, deliveries):
        return await self.call("renew_lock", deliveries)

    async def stats(self, queue):
        return await self.call("stats", queue)

    async def position(self, queue, message_id):
        return await self.call("position", queue, message_id)

    async def dead_letters(self, queue, *, limit=100, after=None):
        return await self.call("dead_letters", queue, limit, after)

    async def redrive(self, queue, keys=None):
        return await self.call("redrive", queue, keys)

    async def purge(self, queue, keys=None):
        return await self.call("purge", queue, keys)

    async def open_inbox(self):
        return ServedInbox(self, await self.call("open_address"))

    async def reply(self, address, messages):
        await self.call("reply", address, messages)


class ServedInbox(Inbox):
    """An inbox on the server."""

    def __init__(self, broker: ServedBroker, address: str) -> None:
        self.broker = broker
        self.address = address

    async def receive(self, *, max_messages, max_wait):
        return await self.broker.call("read", self.address, max_messages, max_wait)

    async def close(self):
        await self.broker.call("close_inbox", self.address)


class TinyServerHarness(ServerHarness):
    """Reaches *server* through *adapter*."""

    def __init__(self, server: TinyServer, adapter: type[Broker] = ServedBroker, **patience: float) -> None:
        super().__init__(f"tiny://{HOST}:{server.port}", adapter=adapter, **patience)
        self._server = server

    async def stop_server(self) -> None:
        await self._server.stop()

    async def start_server(self) -> None:
        await self._server.start()
