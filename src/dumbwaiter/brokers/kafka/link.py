"""The clients of one broker object: a producer, a reader of what is written, an administrator. Here errors become ours.

librdkafka works in threads of its own, and reconnects by itself. Whether the brokers can be reached it tells by the way
only; so when a connection breaks we ask, and while there is no answer every verb raises at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from dumbwaiter.brokers.kafka.codes import QUEUE_FULL, REFUSED, SUSPECT, USELESS
from dumbwaiter.brokers.kafka.location import USUAL_LIMIT, Location
from dumbwaiter.brokers.kafka.wire import Record, record_nbytes
from dumbwaiter.errors import BrokerClosedError, BrokerError, BrokerUnavailableError, MessageTooLargeError
from dumbwaiter.tasks import end

T = TypeVar("T")

ANSWER_WITHIN = 5.0
"""Seconds after which what was asked or written is given up."""
_CONNECT_WITHIN = 3.0
_PROBE_WITHIN = 1.0
_PROBE_EVERY = 0.2
_POLL = 0.02
_LARGEST_BATCH = 1_000_000


class Written:
    """Records on their way: *future* gets the partition and offset of each, or the first error."""

    def __init__(self, records: Sequence[Record], generation: int) -> None:
        count = len(records)
        self.records = records
        self.generation = generation  # not the producer itself: whoever lets go of it last waits for its threads
        self.future: asyncio.Future[list[tuple[int, int]]] = asyncio.get_running_loop().create_future()
        self.places: list[tuple[int, int]] = [(0, 0)] * count
        self.missing = count
        self.error: KafkaError | None = None

    def resolve(self, link: Link) -> None:
        """All have arrived, or failed."""
        if self.future.done():
            return
        if self.error is None:
            link.answered()
            self.future.set_result(self.places)
        else:
            self.future.set_exception(link.error_of("write", self.error, nbytes=max(map(record_nbytes, self.records))))
            link.replace(self.generation, self.error)


class Link:
    """The way to the brokers. *on_down* is called with the error when they cannot be reached any more."""

    def __init__(self, location: Location, *, on_down: Callable[[BrokerError], object]) -> None:
        self.location = location
        self.largest = location.max_message_size or USUAL_LIMIT
        """The bytes that a batch of records may take, as far as is known."""
        self._on_down = on_down
        self._is_open = False
        self._down: BrokerUnavailableError | None = None
        self._refusal: str | None = None
        self._probing: asyncio.Task[None] | None = None
        self._done: list[Written] = []
        self._lock = threading.Lock()
        self._generation = 0
        self._old: list[Producer] = []

    # --- open and close ---

    async def open(self) -> None:
        """Connect. Raises BrokerUnavailableError."""
        self._loop = asyncio.get_running_loop()
        self._is_open = True
        try:
            self._admin = AdminClient(self.settings())
            self._producer = self._new_producer()
        except KafkaException as error:
            self._is_open = False
            raise BrokerUnavailableError(f"no client for {self.location.shown}: {error.args[0]}") from error
        self._thread = threading.Thread(target=self._poll, name="kafka-producer", daemon=True)
        self._thread.start()
        try:
            await self.topics()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Send what is on its way, if that is possible, and end."""
        self._is_open = False
        await end([self._probing])
        await asyncio.to_thread(self._thread.join)
        # Dropped in a thread: the last reference waits for librdkafka's own threads.
        clients = [self._producer, self._admin, *self._old]
        self._old.clear()
        del self._producer, self._admin
        await asyncio.to_thread(clients.clear)

    def _new_producer(self) -> Producer:
        settings = {
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 0,
            "message.timeout.ms": int(ANSWER_WITHIN * 1000),
            "message.max.bytes": 1_000_000_000,
            "batch.size": min(self.location.max_message_size or _LARGEST_BATCH, _LARGEST_BATCH),
            "queue.buffering.max.messages": 1_000_000,
        }
        return Producer(self.settings() | settings)

    def settings(self) -> dict[str, Any]:
        """What all clients have in common."""
        return {
            **self.location.client_settings(),
            "error_cb": self._on_error,
            "log_level": 0,  # what is wrong is said by the errors of verbs
            "client.id": "dumbwaiter",
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "retry.backoff.ms": 50,
            "socket.timeout.ms": int(ANSWER_WITHIN * 1000),
            "socket.nagle.disable": True,
            "allow.auto.create.topics": False,
        }

    # --- asking ---

    async def metadata(self) -> Any:
        """The brokers and topics that there are."""
        within = _PROBE_WITHIN if self._down is not None else _CONNECT_WITHIN
        return await self._call("list topics", partial(self._producer.list_topics, timeout=within))

    async def topics(self) -> dict[str, int]:
        """The names of all topics, with the number of their partitions."""
        self.require_up()
        return {name: len(topic.partitions) for name, topic in (await self.metadata()).topics.items()}

    async def ends(self, places: Iterable[tuple[str, int]], *, first: bool = False) -> dict[tuple[str, int], int]:
        """The offset behind the last record of each topic and partition; with *first* that of the first one."""
        spec: Any = (OffsetSpec.earliest if first else OffsetSpec.latest)()  # type: ignore[no-untyped-call]
        request = {TopicPartition(topic, partition): spec for topic, partition in places}
        futures = self.admin.list_offsets(request, request_timeout=ANSWER_WITHIN)
        answers = await self.answers("look up offsets", futures)
        return {(place.topic, place.partition): answer.offset for place, answer in answers.items()}

    @property
    def admin(self) -> AdminClient:
        """For requests whose futures go to answers()."""
        self.require_up()
        return self._admin

    async def answers(self, what: str, futures: dict[Any, Any], *, unless: int | None = None) -> dict[Any, Any]:
        """The results of *futures* of the AdminClient; what fails with the code *unless* is None.

        Raises BrokerUnavailableError for the first that failed otherwise.
        """
        async with self._asking(what):
            waiting = [asyncio.wrap_future(future) for future in futures.values()]
            results = await asyncio.gather(*waiting, return_exceptions=True)
            for i, result in enumerate(results):
                if isinstance(result, KafkaException) and result.args[0].code() == unless:
                    results[i] = None
                elif isinstance(result, BaseException):
                    raise result
        return dict(zip(futures, results, strict=True))

    async def _call(self, what: str, work: Callable[[], T]) -> T:
        """The result of *work*, which blocks, in a thread."""
        async with self._asking(what):
            return await asyncio.to_thread(work)
        raise AssertionError("an error is raised above")

    @contextlib.asynccontextmanager
    async def _asking(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(2 * ANSWER_WITHIN):
                yield
        except KafkaException as error:
            raise self.error_of(what, error.args[0]) from None
        except TimeoutError:
            raise BrokerUnavailableError(f"{self.location.shown} gave no answer: {what}") from None
        self.answered()

    # --- writing ---

    async def write(self, records: Sequence[Record]) -> list[tuple[int, int]]:
        """Write *records*; their partitions and offsets once all are confirmed. Raises BrokerUnavailableError."""
        written = self.begin(records)
        return await asyncio.shield(written.future)

    def begin(self, records: Sequence[Record]) -> Written:
        """Begin to write *records*."""
        self.require_up()
        written = Written(records, self._generation)
        written.future.add_done_callback(_seen)
        for i, record in enumerate(records):
            try:
                self._producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    on_delivery=partial(self._delivered, written, i),
                    headers=list(record.headers),
                )
            except (BufferError, KafkaException) as error:
                self._delivered(written, i, _kafka_error(error), None)
        return written

    def _delivered(self, written: Written, i: int, error: KafkaError | None, message: Any) -> None:
        """In the polling thread."""
        if error is None:
            written.places[i] = (message.partition(), message.offset())
        else:
            written.error = error
        written.missing -= 1
        if not written.missing:
            with self._lock:
                self._done.append(written)
                is_first = len(self._done) == 1
            if is_first:
                self._in_loop(self._resolve)

    def _resolve(self) -> None:
        with self._lock:
            done, self._done = self._done, []
        for written in done:
            written.resolve(self)

    def replace(self, generation: int, error: KafkaError) -> None:
        """Write by another producer from now on, where *error* says that this one is of no use any more: one whose
        brokers have forgotten it tries until each record's time is over, and one with a fatal error not even that.
        """
        if generation == self._generation and self._is_open and (error.fatal() or error.code() in USELESS):
            self._generation += 1
            self._old.append(self._producer)  # it is dropped when its last record's time is over
            self._producer = self._new_producer()

    def _poll(self) -> None:
        while self._is_open:
            self._producer.poll(_POLL)
            for i in reversed(range(len(self._old))):
                self._old[i].poll(0)
                if not len(self._old[i]):
                    # Its end may take long, and nobody must wait for that.
                    ended = [self._old.pop(i)]
                    threading.Thread(target=ended.clear, daemon=True).start()
        # The producer's last words: what is on its way now would otherwise be lost without a wait.
        self._producer.flush(_PROBE_WITHIN if self._down is None else 0)

    # --- up and down ---

    def require_up(self) -> None:
        """Raises BrokerUnavailableError while the brokers are known to be out of reach."""
        if not self._is_open:
            raise BrokerClosedError
        if self._down is not None:
            raise BrokerUnavailableError(str(self._down))

    def answered(self) -> None:
        """The brokers have just answered."""
        self._down = self._refusal = None

    def error_of(self, what: str, error: KafkaError, *, nbytes: int = 0) -> BrokerError:
        """Ours, for what librdkafka says; *nbytes* is the size of the largest record that was written."""
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            # A topic may take less than the brokers say.
            return MessageTooLargeError(nbytes, min(self.largest, max(0, nbytes - 1)))
        where, reason = self.location.shown, self._refusal or error.str() or error.name()
        if self._refusal is not None:
            return BrokerUnavailableError(f"{where} refuses us: {reason}; check user, password and security=")
        self.suspect()
        return BrokerUnavailableError(f"{where} did not {what}: {reason}{self._next_step(error)}")

    def _next_step(self, error: KafkaError) -> str:
        """What to look at; librdkafka says the same of a refused port, an unknown host, and TLS that is not spoken."""
        if error.code() not in SUSPECT:
            return ""
        encryption = "with" if self.location.security == "ssl" else "without"
        change = "leave security=ssl out" if self.location.security == "ssl" else "else write ?security=ssl"
        return f"; look whether it runs there, and speaks Kafka {encryption} TLS ({change})"

    def suspect(self) -> None:
        """A connection broke: ask whether the brokers are there."""
        if self._is_open and (self._probing is None or self._probing.done()):
            self._probing = self._loop.create_task(self._probe())

    async def _probe(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._producer.list_topics, timeout=_PROBE_WITHIN)
            except KafkaException as error:
                if self._down is None:
                    reason = f"{error.args[0].str()}{self._next_step(error.args[0])}"
                    self._down = BrokerUnavailableError(f"cannot reach {self.location.shown}: {reason}")
                    self._on_down(self._down)
            else:
                return self.answered()
            await asyncio.sleep(_PROBE_EVERY)

    def _on_error(self, error: KafkaError) -> None:
        """In a thread of some client."""
        if error.code() in REFUSED:
            self._refusal = error.str()
        elif error.code() in SUSPECT:
            self._in_loop(self.suspect)

    def _in_loop(self, call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed, and with it whoever waits
            self._loop.call_soon_threadsafe(call)


def _kafka_error(error: BufferError | KafkaException) -> KafkaError:
    return KafkaError(QUEUE_FULL) if isinstance(error, BufferError) else error.args[0]


def _seen(future: asyncio.Future[Any]) -> None:
    """Whoever began to write may have left."""
    if not future.cancelled():
        future.exception()


async def within(seconds: float, work: Awaitable[T], *, otherwise: Callable[[], BrokerError]) -> T:
    """The result of *work*, or the error *otherwise* after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise otherwise() from None


def now_ms() -> int:
    """By this machine's clock."""
    return time.time_ns() // 1_000_000
