"""The dead letters of one queue."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from aiormq.abc import DeliveredMessage

from dumbwaiter.brokers.rabbitmq.drawer import Drawer
from dumbwaiter.brokers.rabbitmq.link import Link
from dumbwaiter.brokers.rabbitmq.wire import attributes_of, dead_letter_of, is_key, key_of
from dumbwaiter.brokers.served import readable_part
from dumbwaiter.envelope import from_attributes
from dumbwaiter.errors import BadInputError, DeadLetterNotFoundError
from dumbwaiter.message import DeadLetter, Message


class DeadLetters:
    """Those of *queue*, in the physical queue *name*. Nothing but dead_letter() puts any there: others are left."""

    def __init__(self, queue: str, name: str, link: Link) -> None:
        self.queue = queue
        self._drawer = Drawer(name, link)

    async def page(self, limit: int, after: str | None) -> list[DeadLetter]:
        """The oldest *limit*, only those behind the key *after*. Raises DeadLetterNotFoundError if it is no key."""
        if after is not None and not is_key(after):
            raise DeadLetterNotFoundError(self.queue, [after])
        found: list[DeadLetter] = []
        async with self._drawer.opened() as content:
            async for part in content.parts():
                letters = (_letter_of(self.queue, one) for one in part)
                found += [one for one in letters if one is not None and (after is None or one.key > after)]
                # All are looked at: what was put back by somebody who looked may stand a little out of order.
                found.sort(key=lambda letter: letter.key)
                del found[limit:]
        return found

    async def take(
        self, keys: Sequence[str] | None, act: Callable[[list[tuple[DeliveredMessage, Message]]], Awaitable[None]]
    ) -> int:
        """Await *act* with those of *keys*, or all, some at a time, and remove them once it returns. How many."""
        wanted = None if keys is None else frozenset(keys)
        if wanted is not None and not wanted:
            return 0
        count = 0
        async with self._drawer.opened() as content:
            async for part in content.parts():
                chosen = [one for one in part if _is_chosen(one, wanted)]
                if chosen:
                    await act([(one, message_of(one)) for one in chosen])
                    await content.remove(chosen)
                count += len(chosen)
        return count


def _is_chosen(message: DeliveredMessage, wanted: frozenset[str] | None) -> bool:
    key = key_of(message.header.properties)
    return key is not None and (wanted is None or key in wanted)


def _letter_of(queue: str, message: DeliveredMessage) -> DeadLetter | None:
    return dead_letter_of(queue, message.header.properties, message_of(message))


def message_of(delivered: DeliveredMessage) -> Message:
    """The message that was published; as much as can be shown of one whose envelope cannot be read."""
    properties = delivered.header.properties
    attributes = attributes_of(properties, now=time.time())
    try:
        return from_attributes(attributes, delivered.body, fallback_id=properties.message_id)
    except BadInputError:
        return readable_part(attributes, delivered.body, properties.message_id)
