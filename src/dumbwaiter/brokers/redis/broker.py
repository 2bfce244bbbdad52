"""The verbs of a Redis or Valkey broker: each is one script call a batch. See docs/brokers/redis.md for the keys."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import cache, partial
from typing import Any

import msgspec

from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION, Capabilities, Claim, Inbox
from dumbwaiter.brokers.findings import Finding
from dumbwaiter.brokers.redis import scripts
from dumbwaiter.brokers.redis.connection import Argument, Pipeline
from dumbwaiter.brokers.redis.errors import NoGroupError, RefusedError
from dumbwaiter.brokers.redis.examining import Facts, findings_of, read_facts, refusal, require_version, stranger
from dumbwaiter.brokers.redis.inbox import REPLY_SECONDS, Mailbox
from dumbwaiter.brokers.redis.keys import (
    QueueKeys,
    fields_of,
    inbox_keys,
    keys_of,
    parse_inbox_address,
)
from dumbwaiter.brokers.redis.letters import Graveyard, Why
from dumbwaiter.brokers.redis.location import location_of
from dumbwaiter.brokers.redis.registry import Registry
from dumbwaiter.brokers.redis.scripts import Script
from dumbwaiter.brokers.redis.taking import MISSING, Taken, Taker
from dumbwaiter.brokers.redis.waiting import Waiting
from dumbwaiter.brokers.served import Received, ServedBroker
from dumbwaiter.errors import (
    BrokerClosedError,
    BrokerError,
    BrokerUnavailableError,
    InboxGoneError,
    LockLostError,
    QueueNotFoundError,
)
from dumbwaiter.message import DeadLetter, Delivery, Message, QueueStats
from dumbwaiter.policies.lanes import lane_of

MAX_MESSAGE_NBYTES = 64 * 1024 * 1024
"""Redis takes 512 MB; but it does one thing at a time, and while it copies such a body everybody waits."""
MAX_CALL_NBYTES = 64 * 1024 * 1024
MAX_CALL_MESSAGES = 500
_ALL_OF = "all of "
"""What a claim to all that a broker object holds begins with, before its owner's name."""
LONGEST_WAIT = 1e7
"""Seconds: event loops take no infinity, and nobody waits for longer."""


class RedisBroker(ServedBroker):
    """Queues in Redis 6.2 or later, or in Valkey. *url* is ``redis://host:6379/0``; see location.py for all of it.

    Whether it is durable depends on the server: only with ``appendfsync always`` is each confirmed message on disk.
    """

    capabilities = Capabilities(
        durable=True,
        multi_process=True,
        ordered=True,
        priority=True,
        strict_priority=False,
        abandon_delay=True,
        send_delay=True,
        uncounted_abandon=True,
        deduplication=True,
        forgets_purged=True,
        portable_tokens=True,
        lists_queues=True,
        counts_ready=True,
        counts_locked=True,
        counts_dead=True,
        knows_gone_inboxes=True,
        oldest_age=True,
        queue_position=False,
        max_message_nbytes=MAX_MESSAGE_NBYTES,
        killed_holder="taken_back",
    )

    def __init__(self, url: str, *, lock_duration: float = DEFAULT_LOCK_DURATION) -> None:
        self._location = location_of(url)
        super().__init__(url, lock_duration=lock_duration)
        self._keys_of: Callable[[str], QueueKeys] = cache(partial(keys_of, self._location.prefix))
        self._received_from: set[str] = set()
        self._beside: set[asyncio.Task[Any]] = set()

    async def _connect(self) -> None:
        self._owner = secrets.token_hex(8)
        self._taker = Taker(self._owner, self.lock_duration)
        self._pipeline = Pipeline(self._location)
        try:
            facts = await self._facts()
            require_version(facts, self._location.shown)
        except BaseException:
            await self._pipeline.close()
            raise
        self.capabilities = msgspec.structs.replace(type(self).capabilities, durable=facts.is_durable)
        self._mailbox = Mailbox(self._location, self._pipeline, self._owner, require_open=self.require_open)
        self._dead = Graveyard(self._pipeline, run=self._run, keys_of=self._keys_of)
        self._is_cluster = facts.is_cluster
        self._registry = Registry(self._pipeline, self._location.prefix, has_queue=self._dead.has_queue)
        self._waitings: dict[str, Waiting] = {}

    def _waiting_for(self, queue: str) -> Waiting:
        """One connection waits for all queues; but in a cluster no command may be about queues of several slots."""
        name = queue if self._is_cluster else ""
        if name not in self._waitings:
            self._waitings[name] = Waiting(
                self._location,
                self._pipeline,
                take=self._take,
                order=self._order,
                read=partial(self._taker.read, has_waited=True),
                give_back=self._give_back,
                ring=lambda queue: self._start(self._run(scripts.RING, queue)),
                keys_of=self._keys_of,
            )
        return self._waitings[name]

    async def _disconnect(self) -> None:
        for waiting in self._waitings.values():
            waiting.dismiss(BrokerClosedError())
        await asyncio.gather(*(waiting.close() for waiting in self._waitings.values()))
        releases = (self._run(scripts.RELEASE, queue, f"{self._owner}.", 0) for queue in self._received_from)
        await asyncio.gather(*releases, *self._beside, return_exceptions=True)
        self._received_from.clear()
        with contextlib.suppress(BrokerError):
            await self._mailbox.close()
        await self._pipeline.close()

    async def _check(self) -> None:
        await self._pipeline.ask("SET", f"{self._location.prefix}:check", "", "PX", 1000)

    async def _examine(self, longest_run: float | None) -> list[Finding]:  # noqa: ARG002 - locks are renewed
        findings = findings_of(await self._facts())
        try:
            await self._check()
        except RefusedError as error:
            findings.append(refusal(error))
        strangers = await self._registry.strangers(all_here=not self._is_cluster)
        return [*findings, *(stranger(self._registry.key, text) for text in strangers)]

    async def _facts(self) -> Facts:
        return await read_facts(self._pipeline)

    # --- queues ---

    async def _create_queue(self, queue: str) -> None:
        try:
            await asyncio.gather(self._registry.add(queue), self._run(scripts.CREATE, queue))
        except BrokerUnavailableError:
            # A server that is full refuses that; and yet a worker must come up to work its queue off.
            if not await self._dead.has_queue(queue):
                raise

    async def _queue_names(self) -> list[str]:
        return await self._registry.names(all_here=not self._is_cluster)

    async def _has_queue(self, queue: str) -> bool:
        return await self._dead.has_queue(queue)

    async def _send(self, queue: str, messages: Sequence[Message], delay: float) -> None:
        for call in _calls(messages):
            arguments: list[Argument] = [_ms(delay)]
            for message in call:
                fields = fields_of(message)
                arguments += (lane_of(message.priority), message.id, len(fields), *fields)
            _require(await self._run(scripts.SEND, queue, *arguments), queue)

    async def _receive(self, queue: str, max_messages: int, max_wait: float) -> list[Delivery]:
        until = time.monotonic() + min(max_wait, LONGEST_WAIT)
        while True:
            received = await self._wait(queue, max_messages, until)
            try:
                self.require_open()
                deliveries = await self.deliveries_of(queue, received)
            except BaseException:
                self._give_back(queue, received)
                raise
            # All that came may have been unreadable; whoever waits for messages waits on.
            if deliveries or not received:
                return deliveries

    async def _wait(self, queue: str, max_messages: int, until: float) -> Sequence[Received]:
        waiting = self._waiting_for(queue)
        looks_first = until <= time.monotonic() or not waiting.is_quiet(queue)
        if looks_first and (received := await self._take_guarded(queue, max_messages)):
            return received
        left = until - time.monotonic()
        if left > 0 and (received := await waiting.receive(queue, max_messages, left)):
            return received
        # A lock that another has let run out meanwhile is announced by nobody: nothing is only what was looked for.
        return [] if looks_first else await self._take_guarded(queue, max_messages)

    async def _take_guarded(self, queue: str, max_messages: int) -> Sequence[Received]:
        """As _take(); of one that is cancelled nothing stays locked."""
        taking: asyncio.Task[Taken] = self._start(self._take(queue, max_messages, False))
        try:
            taken = await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(partial(self._give_back_taken, queue))
            raise
        self.require_open()
        return taken.received

    def _order(self, queue: str, max_messages: int) -> tuple[Argument, ...]:
        """The command that receives, for one who waits."""
        self._received_from.add(queue)
        return scripts.RECEIVE.command(self._keys_of(queue), *self._taker.arguments(max_messages, was_woken=False))

    async def _take(self, queue: str, max_messages: int, was_woken: bool) -> Taken:
        self._received_from.add(queue)
        arguments, asked_at = self._taker.arguments(max_messages, was_woken=was_woken), time.monotonic()
        answer = await self._run(scripts.RECEIVE, queue, *arguments)
        taken = self._taker.read(queue, answer, asked_at)
        self._waiting_for(queue).note(queue, taken)
        return taken

    def _give_back(self, queue: str, received: Sequence[Received]) -> None:
        """Nobody waits for *received* any more. Of a broker that closes meanwhile all is handed back anyway."""
        if received and self.is_open:
            tokens, counts = [one.lock_token for one in received], [one.delivery_count for one in received]
            arguments: list[Argument] = [0, 0, *tokens, *counts]
            self._start(self._run(scripts.ABANDON, queue, *arguments))

    def _give_back_taken(self, queue: str, taking: asyncio.Task[Taken]) -> None:
        if not taking.cancelled() and taking.exception() is None:
            self._give_back(queue, taking.result().received)

    # --- settling ---

    async def _complete(self, deliveries: Sequence[Delivery]) -> None:
        _raise_lost(await self._settle(scripts.COMPLETE, deliveries, [], lambda delivery: delivery.message.id))

    async def _abandon(self, deliveries: Sequence[Delivery], delay: float, counted: bool) -> None:
        first = [_ms(delay), int(counted)]
        _raise_lost(await self._settle(scripts.ABANDON, deliveries, first, lambda delivery: delivery.delivery_count))

    async def _dead_letter(self, deliveries: Sequence[Delivery], reason: str, detail: str) -> None:
        why = partial(Why.packed, reason, detail)
        _raise_lost(await self._settle(scripts.DEAD_LETTER, deliveries, [], why))

    async def _renew_lock(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        until = time.monotonic() + self.lock_duration
        lost = await self._settle(scripts.RENEW, deliveries, [_ms(self.lock_duration)], None)
        gone = {id(delivery) for delivery in lost}
        renewed = [msgspec.structs.replace(one, locked_until=until) for one in deliveries if id(one) not in gone]
        if lost:
            raise LockLostError(lost, renewed)
        return renewed

    async def _settle(
        self,
        script: Script,
        deliveries: Sequence[Delivery],
        first: Sequence[Argument],
        of_each: Callable[[Delivery], Argument] | None,
    ) -> list[Delivery]:
        """Run *script* with *first*, the tokens and *of_each*; the deliveries that it calls lost."""
        by_queue: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            by_queue.setdefault(delivery.queue, []).append(delivery)
        calls = [(queue, call) for queue, all_ in by_queue.items() for call in _chunks(all_, MAX_CALL_MESSAGES)]

        def arguments(call: Sequence[Delivery]) -> list[Argument]:
            return [*first, *(one.lock_token for one in call), *(map(of_each, call) if of_each else ())]

        answers = await asyncio.gather(*(self._run(script, queue, *arguments(call)) for queue, call in calls))
        return [call[number - 1] for (_, call), lost in zip(calls, answers, strict=True) for number in lost]

    def _claim_to_all(self, queue: str) -> Claim | None:
        return Claim(queue, f"{_ALL_OF}{self._owner}", math.inf)

    async def _take_back(self, claims: Sequence[Claim]) -> int:
        count = await super()._take_back([claim for claim in claims if not claim.token.startswith(_ALL_OF)])
        for claim in claims:
            owner = claim.token.removeprefix(_ALL_OF)
            if owner != claim.token:
                with contextlib.suppress(QueueNotFoundError):
                    count += await self._run(scripts.RELEASE, claim.queue, f"{owner}.", 1)
        return count

    # --- looking ---

    async def _stats(self, queue: str) -> QueueStats:
        ready, locked, delayed, dead, age = _require(await self._run(scripts.STATS, queue), queue)
        return QueueStats(ready=ready, locked=locked, delayed=delayed, dead=dead, oldest_age=age / 1000)

    async def _dead_letters(self, queue: str, limit: int, after: str | None) -> list[DeadLetter]:
        return await self._dead.read(queue, limit, after)

    async def _is_dead_letter(self, queue: str, key: str) -> bool:
        return await self._dead.has(queue, key)

    async def _redrive(self, queue: str, keys: Sequence[str] | None) -> int:
        return await self._dead.exhume("redrive", queue, keys)

    async def _purge(self, queue: str, keys: Sequence[str] | None) -> int:
        return await self._dead.exhume("purge", queue, keys)

    # --- request-reply ---

    async def _open_inbox(self) -> Inbox:
        return await self._mailbox.open()

    async def _reply(self, address: str, messages: Sequence[Message]) -> None:
        found = parse_inbox_address(self._location.prefix, address)
        if found is None:
            raise InboxGoneError(address)
        owner, number = found
        keys = inbox_keys(self._location.prefix, owner)
        for call in _calls(messages):
            arguments: list[Argument] = [number, _ms(REPLY_SECONDS)]
            for message in call:
                fields = fields_of(message)
                arguments += (len(fields), *fields)
            if not await scripts.REPLY.run(self._pipeline, self._location.shown, keys, *arguments):
                raise InboxGoneError(address)

    # --- scripts ---

    async def _run(self, script: Script, queue: str, *arguments: Argument) -> Any:
        run = partial(script.run, self._pipeline, self._location.shown, self._keys_of(queue), *arguments)
        with contextlib.suppress(NoGroupError):
            return await run()
        # Somebody has destroyed a group; what lies in the streams is to be served all the same.
        if not await self._dead.has_queue(queue):
            raise QueueNotFoundError(queue)
        try:
            await scripts.CREATE.run(self._pipeline, self._location.shown, self._keys_of(queue))
            return await run()
        except NoGroupError:
            raise QueueNotFoundError(queue) from None

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let *work* run on, whoever leaves; close() waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._beside.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it sees it; and a lock that is not handed back runs out


def _require(answer: Any, queue: str) -> Any:
    if answer == MISSING:
        raise QueueNotFoundError(queue)
    return answer


def _raise_lost(lost: list[Delivery]) -> None:
    if lost:
        raise LockLostError(lost)


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _calls(messages: Sequence[Message]) -> list[list[Message]]:
    """*messages* in as few script calls as may be: all or none of each call are sent."""
    calls: list[list[Message]] = []
    nbytes = 0
    for message in messages:
        if not calls or nbytes + len(message.body) > MAX_CALL_NBYTES or len(calls[-1]) >= MAX_CALL_MESSAGES:
            calls.append([])
            nbytes = 0
        calls[-1].append(message)
        nbytes += len(message.body)
    return calls
