"""Batches of producers that send several messages as one: to the server they are one, and settled as one.

A consumer without a queue of its own gets only as many of them as it has asked for; the client drops the others. So the
batch is read once more, its messages are published again one by one, and then the batch is removed as a whole. A crash
in between leaves it there; none of it is lost.
"""

from __future__ import annotations

from dumbwaiter.brokers.pulsar.journal import messages_from
from dumbwaiter.brokers.pulsar.link import Link
from dumbwaiter.brokers.pulsar.reading import event_time_of, id_of, position_at, properties_at
from dumbwaiter.brokers.pulsar.wire import Copy, Position, again


async def take_apart(link: Link, topic: str, at: Position) -> None:
    """Publish the messages of the batch that stands *at* that place of *topic* again. Raises BrokerUnavailableError."""
    copies = []
    async for message in messages_from(link, topic, at):
        if position_at(message) != at:
            break
        properties = again(properties_at(message), id_of(message), before=0, event_time=event_time_of(message))
        copies.append(Copy(topic, message.data(), properties))
    await link.publish(copies)
