"""A queue's streams and consumers: made, found, missed, written to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dumbwaiter.brokers.nats.answers import NO_RESPONDERS, Question, status_of
from dumbwaiter.brokers.nats.headers import headers_nbytes, parse_stamp
from dumbwaiter.brokers.nats.layout import (
    KIND_KEY,
    LANE_NAMES,
    QUEUE_KEY,
    Names,
    check_stream_config,
    check_subject,
    consumer_config,
    dead_stream_config,
    names_of,
    stream_config,
)
from dumbwaiter.brokers.nats.link import Link
from dumbwaiter.brokers.served import NOT_READY_PAUSES
from dumbwaiter.errors import BrokerError, BrokerUnavailableError, ConfigError, MessageTooLargeError, QueueNotFoundError
from dumbwaiter.message import is_queue_name

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from dumbwaiter.brokers.nats.address import Address

_STREAM_NOT_FOUND, _CONSUMER_EXISTS, _STREAM_EXISTS, _TOO_LARGE, _NO_CLUSTER = 10059, 10148, 10058, 10054, 10074
_NS = 1_000_000_000
_MADE_SECONDS = 1.0
"""For so long consumers are taken to be the ones that they were."""
_CLOCK_SECONDS = 60.0
"""For so long the server's clock is taken to run as time.monotonic() does."""
_SCHEDULES_SINCE = (2, 12)
LEAST_VERSION = (2, 11)


class Queues:
    """The queues under one prefix of one server."""

    def __init__(self, link: Link, address: Address, *, shown: str, lock_duration: float) -> None:
        self._link = link
        self._address = address
        self._shown = shown
        self._lock_duration = lock_duration
        self._own_locks: dict[str, tuple[float, ...]] = {}
        self._made: dict[str, dict[str, str]] = {}
        self._made_until: dict[str, float] = {}
        self._epoch, self._epoch_until = 0.0, 0.0

    def names(self, queue: str) -> Names:
        """The names of *queue*."""
        return names_of(self._address.prefix, queue)

    @property
    def max_payload(self) -> int:
        """The largest message that the server takes, headers included, in bytes."""
        return int(self._link.info["max_payload"])

    @property
    def version(self) -> tuple[int, ...]:
        """The server's version: major and minor."""
        return tuple(int(part) for part in str(self._link.info["version"]).split(".")[:2])

    @property
    def has_schedules(self) -> bool:
        """Whether the server keeps messages until their time."""
        return self.version >= _SCHEDULES_SINCE

    async def create(self, queue: str) -> None:
        """Make the streams and consumers of *queue* that are not there; those that are stay as they are."""
        names = self.names(queue)
        replicas = self._address.replicas
        await self._create_stream(dead_stream_config(names, replicas=replicas), queue)
        config = stream_config(names, replicas=replicas, max_payload=self.max_payload, schedules=self.has_schedules)
        await self._create_stream(config, queue)
        await self._create_consumers(names)

    async def own_locks(self, queue: str) -> tuple[float, ...]:
        """Seconds for which a delivery stays with whoever got it, by lane. Consumers that lack are made.

        Whoever made them chose that, and it never changes. Raises QueueNotFoundError.
        """
        names = self.names(queue)
        infos = await self.consumers(names)
        if not {info["name"] for info in infos} >= set(LANE_NAMES):
            await self._create_consumers(names)
            infos = await self.consumers(names)
        self._made[queue] = {info["name"]: info["created"] for info in infos}
        found = {info["name"]: info["config"] for info in infos}
        self._own_locks[queue] = locks = tuple(found[lane]["ack_wait"] / _NS for lane in LANE_NAMES)
        return locks

    def known_own_lock(self, queue: str, lane: int) -> float:
        """As own_locks(), which was called before."""
        return self._own_locks[queue][lane]

    def known_made(self, queue: str, lane: int) -> str:
        """When the consumer of *lane* was made, as it was when own_locks() was called before."""
        return self._made[queue][LANE_NAMES[lane]]

    async def made(self, queue: str) -> dict[str, str]:
        """When the consumers of *queue* were made, by name, a second ago at most. Those that are not there are missing.

        Whoever deletes a stream and makes it anew has one that counts its messages from 1 again: what was delivered of
        the old one is settled by the same words as what is delivered of the new one.
        """
        now = time.monotonic()
        if now > self._made_until.get(queue, 0.0):
            try:
                infos = await self.consumers(self.names(queue))
            except QueueNotFoundError:
                return {}
            made = {info["name"]: info["created"] for info in infos}
            if not made.keys() >= set(LANE_NAMES):
                return made
            self._made[queue], self._made_until[queue] = made, now + _MADE_SECONDS
        return self._made[queue]

    async def consumers(self, names: Names) -> list[dict[str, Any]]:
        """What the server tells of the consumers of a queue. Raises QueueNotFoundError."""
        answer = await self._link.json(f"CONSUMER.LIST.{names.stream}")
        self.check(answer, names.queue)
        return list(answer["consumers"] or [])

    async def names_listed(self) -> list[str]:
        """The queues under this prefix, sorted."""
        listed: list[str] = []
        offset, total = 0, 1
        while offset < total:
            request = {"subject": f"{self._address.prefix}.normal.*", "offset": offset}
            answer = await self._link.json("STREAM.LIST", request)
            self.check(answer)
            streams, total = answer.get("streams") or [], answer["total"]
            for stream in streams:
                metadata = stream["config"].get("metadata") or {}
                queue = metadata.get(QUEUE_KEY, "")
                if metadata.get(KIND_KEY) == "queue" and self.names(queue).stream == stream["config"]["name"]:
                    listed.append(queue)
            offset += max(len(streams), 1)
        return sorted(listed)

    async def has(self, queue: str) -> bool:
        """Whether *queue* was created."""
        if not is_queue_name(queue):
            return False
        answer = await self._link.json(f"STREAM.INFO.{self.names(queue).stream}")
        if answer.get("error", {}).get("err_code") == _STREAM_NOT_FOUND:
            return False
        self.check(answer, queue)
        return True

    async def missing(self, queue: str) -> BrokerError:
        """The error for a stream or consumer of *queue* that does not answer."""
        try:
            if not await self.has(queue):
                return QueueNotFoundError(queue)
        except BrokerError as error:
            return error
        return BrokerUnavailableError(
            f"a stream or consumer of queue {queue!r} does not answer at {self._shown}: it has no leader, or was "
            f"deleted; call create_queue({queue!r}) to have it made again"
        )

    async def due(self, queue: str, delay: float) -> float | None:
        """When a *delay* that begins now ends, in seconds since the Unix epoch by the server's clock; None for none.

        Our own clock may be another, and be set at any moment, so it is not looked at: what the server's says is asked
        now and then, and counted on by time.monotonic(). Raises QueueNotFoundError.
        """
        if delay <= 0:
            return None
        now = time.monotonic()
        if now > self._epoch_until:
            answer = await self._link.json(f"STREAM.INFO.{self.names(queue).stream}")
            self.check(answer, queue)
            # As if the question had needed no time: so a message comes a little late, and never early.
            self._epoch, self._epoch_until = parse_stamp(answer["ts"]) - now, now + _CLOCK_SECONDS
        return self._epoch + time.monotonic() + delay

    async def publish(self, queue: str, questions: Sequence[Question]) -> None:
        """Write messages into streams of *queue*; return when all are confirmed. One that is there already is fine."""
        unheard = await self._publish(questions)
        for pause in NOT_READY_PAUSES:
            if not unheard:
                return
            if isinstance(error := await self.missing(queue), QueueNotFoundError):
                raise error
            await asyncio.sleep(pause)
            unheard = await self._publish(unheard)
        if unheard:
            raise await self.missing(queue)

    async def _publish(self, questions: Sequence[Question]) -> list[Question]:
        """Those that no stream was there to hear; the others are confirmed."""
        answers = await self._link.ask(questions)
        unheard = []
        for question, answer in zip(questions, answers, strict=True):
            if status_of(answer) == NO_RESPONDERS:
                unheard.append(question)
            elif b'"error"' in answer.data:
                self._check_publish(json.loads(answer.data), question)
        return unheard

    async def check_writing(self, nbytes: int = 0) -> None:
        """Write a message of our own, of so many bytes. Raises BrokerUnavailableError when that does not work."""
        subject = check_subject(self._address.prefix)
        (answer,) = await self._link.ask([(subject, bytes(nbytes), None)])
        if status_of(answer) == NO_RESPONDERS:
            await self._create_stream(check_stream_config(self._address.prefix, replicas=self._address.replicas), "")
            (answer,) = await self._link.ask([(subject, bytes(nbytes), None)])
        self.check(self._link.read(answer))

    def check(self, answer: dict[str, Any], queue: str | None = None) -> None:
        """Raises QueueNotFoundError or BrokerUnavailableError when *answer* is an error."""
        error = answer.get("error")
        if error is None:
            return
        if error.get("err_code") == _STREAM_NOT_FOUND and queue is not None:
            raise QueueNotFoundError(queue)
        raise BrokerUnavailableError(f"{self._shown} refuses: {error.get('description')} ({error.get('err_code')})")

    def _check_publish(self, answer: dict[str, Any], question: Question) -> None:
        if answer.get("error", {}).get("err_code") == _TOO_LARGE:
            nbytes = len(question[1]) + headers_nbytes(question[2] or {})
            raise MessageTooLargeError(nbytes, self.max_payload)
        self.check(answer)

    async def _create_stream(self, config: dict[str, Any], queue: str) -> None:
        answer = await self._link.json(f"STREAM.CREATE.{config['name']}", config)
        code = answer.get("error", {}).get("err_code")
        if code == _NO_CLUSTER:
            text = f"{self._shown} is in no cluster, and ?replicas={config['num_replicas']} in its URL needs one"
            text = f"{text}; leave it out, or name a cluster of so many servers"
            # Without a queue it is our own look at whether the broker works, of which the answer is that it does not.
            raise ConfigError(text) if queue else BrokerUnavailableError(text)
        if code != _STREAM_EXISTS:
            self.check(answer)
            return
        # One that is there may have another number of replicas, or a limit that its owner has set.
        there = await self._link.json(f"STREAM.INFO.{config['name']}")
        self.check(there)
        metadata = there["config"].get("metadata") or {}
        if metadata.get(QUEUE_KEY) != queue:
            raise BrokerUnavailableError(
                f"{self._shown} has a stream {config['name']!r} that is not ours; delete it, or set another ?prefix="
            )

    async def _create_consumers(self, names: Names) -> None:
        questions = []
        for lane, subject in enumerate(names.subjects):
            config = consumer_config(names, lane, lock_duration=self._lock_duration)
            request = {"stream_name": names.stream, "config": config, "action": "create"}
            questions.append(self._link.api(f"CONSUMER.CREATE.{names.stream}.{LANE_NAMES[lane]}.{subject}", request))
        for answer in await self._link.ask(questions):
            content = self._link.read(answer)
            if content.get("error", {}).get("err_code") != _CONSUMER_EXISTS:
                self.check(content, names.queue)


def lane_of(message: Msg) -> int:
    """The lane that *message*, a delivery, came by."""
    return LANE_NAMES.index(message.subject.split(".")[1])
