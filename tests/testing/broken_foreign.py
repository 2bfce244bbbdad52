"""Adapters that stumble over what others wrote, and how their harness writes it."""

from __future__ import annotations

from breaking import Breaks

from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.brokers.served import BAD_ENVELOPE
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.message import Message
from dumbwaiter.testing import Harness

breaks = Breaks()

READ = "test_a_message_that_cannot_be_read_is_dead_lettered_and_costs_no_other"
LARGEST = "test_one_of_the_largest_size_that_cannot_be_read_costs_no_other"
MOST = "test_one_with_the_most_headers_that_cannot_be_read_costs_no_other"


class ForeignHarness(Harness):
    """Headers are extensions, and one named priority is none that can be read."""

    most_headers = 30

    async def send_foreign(self, queue, headers, body):
        async with self.connect() as broker:
            await broker.send(queue, [Message(body=body, extensions=dict(headers))])


class ReadsEnvelopes(MemoryBroker):
    """A sound one."""

    async def receive(self, queue, *, max_messages, max_wait):
        came = await super().receive(queue, max_messages=max_messages, max_wait=max_wait)
        unread = [one for one in came if "priority" in one.message.extensions]
        for one in unread:
            await self.bury(one)
        return [one for one in came if one not in unread] or (
            await self.receive(queue, max_messages=max_messages, max_wait=max_wait) if unread else []
        )

    async def bury(self, delivery):
        await self.dead_letter([delivery], reason=BAD_ENVELOPE)


@breaks(READ)
class DropsWhatCannotBeRead(ReadsEnvelopes):
    async def bury(self, delivery):
        await self.complete([delivery])


@breaks(READ)
class HandsOutWhatCannotBeRead(MemoryBroker):
    pass


@breaks(LARGEST, keeps=READ)
class CannotBuryWhatIsLarge(ReadsEnvelopes):
    async def bury(self, delivery):
        if len(delivery.message.body) > 10_000:
            raise BrokerUnavailableError("too large for a dead letter")
        await super().bury(delivery)


@breaks(MOST, keeps=READ)
class HandsBackALookWithManyHeaders(ReadsEnvelopes):
    async def receive(self, queue, *, max_messages, max_wait):
        came = await MemoryBroker.receive(self, queue, max_messages=max_messages, max_wait=max_wait)
        if any(len(one.message.extensions) > 20 for one in came):
            await self.abandon(came)
            return []
        await self.abandon(came, counted=False)
        return await super().receive(queue, max_messages=max_messages, max_wait=max_wait)
