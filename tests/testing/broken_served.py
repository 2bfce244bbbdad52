"""Adapters of a server that guess, hang or stay cut off when it is killed."""

from __future__ import annotations

import asyncio
import contextlib

from breaking import Breaks
from served_broker import HOST, ServedBroker

from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.message import QueueStats

breaks = Breaks()

DOWN = "test_every_verb_raises_while_the_server_is_down"
WAITS = "test_a_receive_that_waits_while_the_server_dies_raises_or_gets_what_comes_later"


@breaks(DOWN)
class CountsZeroWhileItsServerIsDown(ServedBroker):
    async def stats(self, queue):
        try:
            return await super().stats(queue)
        except BrokerUnavailableError:
            return QueueStats(ready=0, locked=0, delayed=0, dead=0, oldest_age=0.0)


@breaks(DOWN)
class CallsItsQueueEmptyWhileItsServerIsDown(ServedBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        try:
            return await super().receive(queue, max_messages=max_messages, max_wait=max_wait)
        except BrokerUnavailableError:
            return []


@breaks(DOWN)
class LooksWellWhileItsServerIsDown(ServedBroker):
    async def check(self):
        if not self._is_open:
            await super().check()


@breaks(DOWN)
class KnowsNoQueuesWhileItsServerIsDown(ServedBroker):
    async def queues(self):
        try:
            return await super().queues()
        except BrokerUnavailableError:
            return []


@breaks(DOWN)
class CompletesIntoTheVoid(ServedBroker):
    async def complete(self, deliveries):
        with contextlib.suppress(BrokerUnavailableError):
            await super().complete(deliveries)


@breaks(DOWN)
class RetriesForever(ServedBroker):
    async def send(self, queue, messages, *, delay=0.0):
        while True:
            try:
                return await super().send(queue, messages, delay=delay)
            except BrokerUnavailableError:
                await asyncio.sleep(0.05)


@breaks(DOWN)
class RaisesWhatItsClientLibraryRaises(ServedBroker):
    async def dead_letters(self, queue, *, limit=100, after=None):
        try:
            return await super().dead_letters(queue, limit=limit, after=after)
        except BrokerUnavailableError as error:
            raise error.__cause__ from None


@breaks(DOWN)
class OpensWithoutAServer(ServedBroker):
    async def open(self):
        self._is_open = True


@breaks("test_a_server_that_is_killed_among_a_thousand_messages_costs_none_of_them")
@breaks("test_a_broker_reconnects_by_itself_after_its_server_restarts")
class NeverReconnects(ServedBroker):
    async def open(self):
        await super().open()
        self.reader, self.writer = await asyncio.open_connection(HOST, self._port)

    async def close(self):
        await super().close()
        self.writer.close()

    async def call(self, verb, *arguments):
        if hasattr(self, "reader") and self.reader.at_eof() and self._is_open:
            raise BrokerUnavailableError("the connection was lost")
        return await super().call(verb, *arguments)


@breaks("test_what_could_not_be_settled_while_the_server_was_down_is_settled_later_by_the_same_call")
class TakesAFailedSettlementForDone(ServedBroker):
    async def complete(self, deliveries):
        self.tried = getattr(self, "tried", set())
        new = [one for one in deliveries if one.lock_token not in self.tried]
        self.tried |= {one.lock_token for one in new}
        if new:
            await super().complete(new)


@breaks(WAITS)
class EndsTheWaitInSilenceWhenItsServerDies(ServedBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        try:
            return await super().receive(queue, max_messages=max_messages, max_wait=max_wait)
        except BrokerUnavailableError:
            return []


@breaks(WAITS)
class WaitsForAServerThatIsGone(ServedBroker):
    async def receive(self, queue, *, max_messages, max_wait):
        try:
            return await super().receive(queue, max_messages=max_messages, max_wait=max_wait)
        except BrokerUnavailableError:
            await asyncio.sleep(max_wait)
            raise


@breaks("test_messages_that_were_locked_when_their_server_died_come_back")
class CountsItsLocksAmongWhatWasConfirmed(ServedBroker):
    """It completes what it hands out, and remembers by itself what it has to put back."""

    async def receive(self, queue, *, max_messages, max_wait):
        deliveries = await super().receive(queue, max_messages=max_messages, max_wait=max_wait)
        await super().complete(deliveries)
        return deliveries
