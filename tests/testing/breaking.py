"""Adapters that are broken on purpose, and what the tests ask of each: that the rule which names its fault fails."""

from __future__ import annotations

from typing import TypeVar

from msgspec.structs import replace

from dumbwaiter.brokers.contract import Broker
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.brokers.memory_queue import MemoryQueue

T = TypeVar("T", bound=type[Broker])

BATCH = "test_a_batch_of_messages_arrives_whole_and_once"
ONE = "test_a_message_without_attributes_arrives_unchanged_with_an_empty_body"


class Breaks:
    """Adds the decorated adapter to its collection: it breaks *rule* but *keeps* another, so it is not simply dead."""

    def __init__(self) -> None:
        self.adapters: list[tuple[type[Broker], str, str]] = []

    def __call__(self, rule: str, *, keeps: str = BATCH):
        def register(adapter: T) -> T:
            self.adapters.append((adapter, rule, keeps))
            return adapter

        return register


class QueueBroker(MemoryBroker):
    """A memory broker with the *state* of a broken queue."""

    state: type[MemoryQueue] = MemoryQueue

    async def create_queue(self, queue):
        await super().create_queue(queue)
        shared = self._server.queues[queue]
        shared.state.__class__ = self.state
        shared.line._next_event = shared.state.next_event


class PutsLast(MemoryQueue):
    """Gives those messages of which is_put_last() says so the place of priority 0, though they keep their number."""

    def _put(self, entry, ready_at, now):
        message = entry.message
        if self.is_put_last(entry):
            entry.message = replace(message, priority=0)
        super()._put(entry, ready_at, now)
        entry.message = message
