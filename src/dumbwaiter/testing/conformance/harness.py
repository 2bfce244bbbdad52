"""How the conformance suite reaches a broker. One harness object a test, in a namespace that nobody else uses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.errors import ConfigError
from dumbwaiter.testing.conformance.crash import Held
from dumbwaiter.testing.eventually import eventually
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence

    from dumbwaiter.brokers.contract import Broker, Capabilities
    from dumbwaiter.message import Delivery, Message

T = TypeVar("T")

LONG_LOCK = 60.0
"""Seconds of lock in those tests in which no lock may run out."""


class Harness:
    """Opens brokers at *url*, each time connected to the same, initially empty server.

    *adapter* is the Broker's class; without it open_broker() finds the one for *url*. Differences between products are
    data: *lock_duration* (seconds; the shortest lock that the product keeps well), *slack* (seconds by which it may be
    late on a busy machine), *quiet* (seconds of silence that prove that nothing comes), *stats_age* (seconds by which
    stats may lag). Override send_and_die() for an adapter whose messages a child process cannot reach by *url*.
    """

    most_headers = 10
    """How many headers a foreign message may have."""
    longest_header = 1000
    """Bytes of the longest header that a foreign message may have beside a body of nearly the largest size."""

    def __init__(
        self,
        url: str,
        *,
        adapter: type[Broker] | None = None,
        lock_duration: float = 0.5,
        slack: float = 3.0,
        quiet: float = 0.2,
        stats_age: float = 1.0,
    ) -> None:
        self.url = url
        self.adapter = adapter or _adapter_of(url)
        self.lock_duration = lock_duration
        self.slack = slack
        self.quiet = quiet
        self.stats_age = stats_age
        self.place = shown(url)
        self._beside: list[asyncio.Task[Any]] = []
        self._capabilities: Capabilities | None = None

    async def capabilities(self) -> Capabilities:
        """What a broker at *url* declares once it is open: it may depend on the server there."""
        if self._capabilities is None:
            async with self.connect() as broker:
                self._capabilities = broker.capabilities
        return self._capabilities

    async def open(self, lock_duration: float) -> Broker:
        """A new broker object, connected; the caller closes it."""
        broker = self.adapter(self.url, lock_duration=lock_duration)
        await broker.open()
        return broker

    async def send_and_crash(self, queue: str, messages: Sequence[Message], *, take: int = 0) -> None:
        """As send_and_die(); what holds the messages dies too, where that is not the process that sent them."""
        await self.send_and_die(queue, messages, take=take)

    async def send_and_die(self, queue: str, messages: Sequence[Message], *, take: int = 0) -> None:
        """In a child process create *queue*, send, lock *take* of the messages, and die by kill -9 once all that is
        confirmed. Locks last *lock_duration*.
        """
        await self._run_crash(queue, messages, take=take, lock_duration=self.lock_duration)

    async def hold_and_die(self, queue: str, messages: Sequence[Message]) -> Held:
        """In a child process create *queue*, send, lock all of the messages for long, and die by kill -9: what the
        child could claim.
        """
        said = await self._run_crash(queue, messages, take=len(messages), lock_duration=LONG_LOCK)
        held: Held = msgspec.msgpack.decode(said, type=Held)
        return held

    async def _run_crash(self, queue: str, messages: Sequence[Message], *, take: int, lock_duration: float) -> bytes:
        """What the child says before it dies."""
        command = (sys.executable, "-m", "dumbwaiter.testing.conformance.crash")
        arguments = (f"{self.adapter.__module__}:{self.adapter.__qualname__}", self.url, queue)
        child = await asyncio.create_subprocess_exec(
            *command,
            *arguments,
            str(lock_duration),
            str(take),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},  # the adapter may lie beside its tests
        )
        said, _ = await child.communicate(msgspec.json.encode(messages))
        assert child.returncode == -signal.SIGKILL, f"the sending process ended with {child.returncode} before its kill"
        return said

    async def send_foreign(self, queue: str, headers: Mapping[str, str], body: bytes) -> None:  # noqa: ARG002 - overridden
        """Publish *body* with *headers* to *queue* as somebody does who knows nothing of dumbwaiter: with the product's
        own client. Override it, and say in *most_headers* and *longest_header* what the product takes; where it is left
        out those rules are not checked.
        """
        pytest.skip(f"RULE NOT CHECKED: the harness of {self.place} sends nothing foreign to {queue!r}")

    def new_queue(self) -> str:
        """A queue name that nobody has used."""
        return f"conformance-{secrets.token_hex(6)}"

    @contextlib.asynccontextmanager
    async def connect(self, lock_duration: float = LONG_LOCK) -> AsyncIterator[Broker]:
        """A broker for the length of a ``with`` block."""
        broker = await self.open(lock_duration)
        try:
            yield broker
        except BaseException:
            await self._stop_what_was_started()
            raise
        finally:
            await broker.close()

    @contextlib.asynccontextmanager
    async def connect_to_queue(self, lock_duration: float = LONG_LOCK) -> AsyncIterator[tuple[Broker, str]]:
        """A broker and the name of a fresh queue."""
        queue = self.new_queue()
        async with self.connect(lock_duration) as broker:
            await broker.create_queue(queue)
            yield broker, queue

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Let *work* run beside the test. When the rule fails it is cancelled, so that nothing hides that failure."""
        task = asyncio.create_task(work)
        self._beside.append(task)
        return task

    async def let_run(self, turns: int | None) -> None:
        """Let what was started run for so many turns of the event loop; None: until it surely waits."""
        if turns is None:
            await asyncio.sleep(self.quiet / 2)
        for _ in range(turns or 0):
            await asyncio.sleep(0)

    async def _stop_what_was_started(self) -> None:
        for task in self._beside:
            task.cancel()
        if self._beside:
            done, _ = await asyncio.wait(self._beside, timeout=self.slack)
            await asyncio.gather(*done, return_exceptions=True)

    async def needs(self, capability: str) -> None:
        """Skip the running test, loudly, when the broker does not declare *capability*."""
        if not getattr(await self.capabilities(), capability):
            pytest.skip(f"RULE NOT CHECKED: the adapter of {self.place} declares {capability}=False")

    # --- what tests say over and over ---

    async def take(self, broker: Broker, queue: str, count: int = 1) -> list[Delivery]:
        """Exactly *count* deliveries, each within *slack* seconds of the one before."""
        deliveries: list[Delivery] = []
        while len(deliveries) < count:
            async with asyncio.timeout(2 * self.slack):  # so that a receive that hangs fails the rule, not the run
                some = await broker.receive(queue, max_messages=count - len(deliveries), max_wait=self.slack)
            assert some, f"only {len(deliveries)} of {count} messages came within {self.slack} s"
            deliveries += some
        assert len(deliveries) == count, f"{len(deliveries)} messages came where at most {count} were asked for"
        return deliveries

    async def take_one(self, broker: Broker, queue: str) -> Delivery:
        """The next delivery."""
        return (await self.take(broker, queue))[0]

    async def expect_nothing(self, broker: Broker, queue: str, *, during: float | None = None) -> None:
        """No message comes for *during* seconds (*quiet* unless given)."""
        until = time.monotonic() + (self.quiet if during is None else during)
        while (wait := until - time.monotonic()) > 0:
            async with asyncio.timeout(wait + self.slack):
                came = await broker.receive(queue, max_messages=10, max_wait=wait)
            assert not came, f"messages came that must not: {[(d.message.id, d.delivery_count) for d in came]}"

    async def expect_stats(self, broker: Broker, queue: str, **counts: int) -> None:
        """stats() comes to say *counts*; counts left out must be 0, and those that the product cannot tell None."""
        expected: dict[str, int | None] = {"ready": 0, "locked": 0, "delayed": 0, "dead": 0}
        expected.update(counts)
        if broker.capabilities.ready_includes_locked:
            expected["ready"] = counts.get("ready", 0) + counts.get("locked", 0)
        if not broker.capabilities.counts_ready:
            expected.update(ready=None, delayed=None)
        if not broker.capabilities.counts_locked:
            expected["locked"] = None
        if not broker.capabilities.counts_dead:
            expected["dead"] = None

        async def as_expected() -> bool:
            stats = await broker.stats(queue)
            found = {name: getattr(stats, name) for name in expected}
            assert found == expected, f"stats say {found}, expected {expected}"
            return True

        await eventually(
            as_expected, within=self.stats_age + self.lock_duration + self.slack, what="the expected stats"
        )


def _adapter_of(url: str) -> type[Broker]:
    try:
        return type(open_broker(url))
    except ConfigError as error:
        raise ConfigError(
            f"{error}; an adapter of your own goes to the harness: Harness(url, adapter=MyBroker)"
        ) from None


class ServerHarness(Harness, ABC):
    """A harness for a product with a server of its own, which the suite may kill and start."""

    @abstractmethod
    async def stop_server(self) -> None:
        """Kill the server with kill -9; return when it is gone."""

    @abstractmethod
    async def start_server(self) -> None:
        """Start the server again, at the same address and with its data; return when it listens."""

    async def send_and_crash(self, queue: str, messages: Sequence[Message], *, take: int = 0) -> None:
        broker = await self.open(self.lock_duration)
        await broker.create_queue(queue)
        await broker.send(queue, messages)
        if take:
            await self.take(broker, queue, take)
        await self.stop_server()
        await self.start_server()
        await broker.close()
