"""The embedded broker: a file instead of a server. How it works is told in docs/sqlite.md."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
from typing import TYPE_CHECKING, Any

import apsw

from dumbwaiter.boot import boot_id
from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION, Broker, Capabilities, Claim, Inbox
from dumbwaiter.brokers.sqlite import operations as ops
from dumbwaiter.brokers.sqlite import schema, settling
from dumbwaiter.brokers.sqlite.examining import examine, examine_missing
from dumbwaiter.brokers.sqlite.inbox import Inboxes
from dumbwaiter.brokers.sqlite.location import OpenFile, path_of, prepare_folder, socket_folder
from dumbwaiter.brokers.sqlite.looking import Reader
from dumbwaiter.brokers.sqlite.maintenance import MAINTENANCE_SECONDS, Maintain
from dumbwaiter.brokers.sqlite.rows import MAX_MESSAGE_NBYTES, decode, decode_leniently, encode
from dumbwaiter.brokers.sqlite.turnstile import Turnstile
from dumbwaiter.brokers.sqlite.waiting import PendingReceive, Receivers
from dumbwaiter.brokers.sqlite.wakeups import WakeSocket
from dumbwaiter.brokers.sqlite.writer import Writer, unavailable
from dumbwaiter.errors import (
    BadInputError,
    BrokerClosedError,
    BrokerUnavailableError,
    LockLostError,
    QueueNotFoundError,
)
from dumbwaiter.message import DeadLetter, Delivery, Message, QueueStats
from dumbwaiter.policies.delays import kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dumbwaiter.brokers.findings import Finding

#: asyncio's timers take no infinity; nobody waits longer than this.
_LONGEST_WAIT_SECONDS = 1e7

#: Dead-letter reason of a message whose producer wrote attributes that cannot be read.
BAD_ENVELOPE = "bad-envelope"


class SqliteBroker(Broker):
    """Queues in one SQLite file, shared by all processes of this machine.

    *url* is ``sqlite:relative/path.db`` or ``sqlite:///absolute/path.db``; the folder is created.
    """

    capabilities = Capabilities(
        durable=True,
        multi_process=True,
        ordered=True,
        priority=True,
        strict_priority=True,
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
        queue_position=True,
        max_message_nbytes=MAX_MESSAGE_NBYTES,
        killed_holder="taken_back",
    )

    def __init__(self, url: str, *, lock_duration: float = DEFAULT_LOCK_DURATION) -> None:
        super().__init__(url, lock_duration=lock_duration)
        self.path = path_of(url)
        self._process: int | None = None
        # The tokens of one broker object lie together, so that close() finds all that it holds.
        self._first_token = secrets.randbits(30) * settling.TOKENS_OF_ONE
        self._last_token = self._first_token

    # --- opening and closing ---

    async def open(self) -> None:
        if self._process is not None:
            raise BrokerUnavailableError(f"{self.url} is open already; use one broker object for each `async with`")
        schema.refuse_wal_reset_bug(apsw.sqlite_lib_version())
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._open_file)
        self._writer = Writer(self.path, self._file, self._socket.path, self._loop, lock_duration=self.lock_duration)
        self._receivers = Receivers(self._loop, self._submit, self._probe)
        self._inboxes = Inboxes(self._loop, self._submit, self._run, self.reader, self._mend_socket)
        self._loop.add_reader(self._socket.fileno(), self._kicked)
        self._process = os.getpid()
        self._maintain()

    def _open_file(self) -> None:
        self.path = self.path.absolute()
        prepare_folder(self.path)
        with contextlib.ExitStack() as stack:
            try:
                turnstile = Turnstile(self.path, patience=self.lock_duration)
                stack.callback(turnstile.close)
                stack.enter_context(turnstile)
                connection = schema.connect(self.path)
                stack.callback(connection.close)
                schema.prepare(connection, self.path, boot=boot_id())
                # Two, so that counting a million messages in a thread does not hold up the event loop's probes.
                self._file = OpenFile(self.path)
                self.reader, self._counting_reader = Reader(self.path, self._file), Reader(self.path, self._file)
                self._socket = WakeSocket(socket_folder(self.path))
            except (OSError, apsw.Error) as error:
                raise unavailable(self.path, error) from error

    async def close(self) -> None:
        if self._process is None:
            return
        self._process = None
        self._maintenance.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._receivers.close(BrokerClosedError("this broker was closed while the call waited"))
        self._inboxes.close()
        self._submit(ops.ForgetSocket())
        self._submit(settling.HandBack(self._first_token, self._last_token))
        await asyncio.shield(asyncio.to_thread(self._close_file))

    def _close_file(self) -> None:
        self._writer.close()
        self.reader.close()
        self._counting_reader.close()
        self._socket.close()

    def _maintain(self) -> None:
        self._maintenance = self._loop.call_later(MAINTENANCE_SECONDS, self._maintain)
        self._mend_socket()
        self._submit(Maintain())

    def _mend_socket(self) -> None:
        """Be found again by those who wake this broker. Until it succeeds, what waits looks by itself."""
        if self._process is None or not self._socket.is_lost():
            return
        try:
            socket_folder(self.path)
            self._loop.remove_reader(self._socket.fileno())
            self._socket.bind_again()
        except (OSError, BrokerUnavailableError):
            return
        finally:
            self._loop.add_reader(self._socket.fileno(), self._kicked)
        self._inboxes.register_again()

    def _probe(self, queue_id: int) -> tuple[bool, float | None]:
        self._mend_socket()
        return self.reader.probe(queue_id)

    # --- from and to the writer ---

    def _submit(self, operation: ops.Operation) -> None:
        self._writer.submit(operation)

    def _check_open(self) -> None:
        if self._process is None:
            raise BrokerClosedError
        if self._process != os.getpid():
            raise BrokerClosedError("this broker was opened before a fork; open a new one in each process")

    async def _run(self, operation: ops.Operation) -> Any:
        self._check_open()
        self._inboxes.flush()
        operation.future = self._loop.create_future()
        self._writer.submit(operation)
        return await operation.future

    def _kicked(self) -> None:
        for payload in self._socket.drain():
            if payload.startswith(b"q") and payload[1:].isdigit():
                self._receivers.kicked(int(payload[1:]))
        # A wake-up for the inboxes may have been lost behind others in the socket's queue; looking is cheap.
        self._inboxes.wake()

    # --- verbs ---

    async def check(self) -> None:
        await self._run(ops.Check())
        # Its own row may lie on a page that is whole, while messages can be neither sent nor received.
        if self._file.damage is not None:
            raise unavailable(self.path, self._file.damage)

    async def examine(self, *, longest_run: float | None = None) -> list[Finding]:  # noqa: ARG002 - no lock is too short
        await self.check()
        return await asyncio.to_thread(examine, self.path)

    def examine_unopened(self) -> list[Finding] | None:
        return None if self.path.exists() else examine_missing(self.path)

    async def _create_queue(self, queue: str) -> None:
        await self._run(ops.CreateQueue(queue))

    async def queues(self) -> list[str]:
        self._check_open()
        return self.reader.queues()

    async def send(self, queue: str, messages: Sequence[Message], *, delay: float = 0.0) -> None:
        self._check_open()
        rows = encode(messages)
        if rows:
            await self._run(ops.Send(queue, rows, kept(delay)))

    async def receive(self, queue: str, *, max_messages: int, max_wait: float) -> list[Delivery]:
        self._check_open()
        if max_messages < 1:
            return []
        give_up_at = self._loop.time() + max_wait
        while True:
            receive = await self._receive(queue, max_messages, give_up_at)
            try:
                deliveries = await self._deliveries(receive)
            except BaseException:
                self._submit(settling.HandBack(receive.token, receive.token))
                raise
            if deliveries or not receive.result or self._loop.time() >= give_up_at:
                return deliveries

    async def _receive(self, queue: str, limit: int, give_up_at: float) -> PendingReceive:
        self._check_open()
        self._last_token += 1
        patience = min(give_up_at - self._loop.time(), _LONGEST_WAIT_SECONDS)
        receive = PendingReceive(
            self._receivers,
            queue,
            limit=limit,
            token=self._last_token,
            lock_duration=self.lock_duration,
            waits=patience > 0,
        )
        receive.future = self._loop.create_future()
        timer = self._loop.call_later(patience, self._receivers.expire, receive) if patience > 0 else None
        self._receivers.launch(receive)
        try:
            await receive.future
        except asyncio.CancelledError:
            self._receivers.drop(receive)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        return receive

    async def _deliveries(self, receive: PendingReceive) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for seq, count, message_id, headers, body in receive.result:
            token = settling.lock_token(seq, receive.token)
            try:
                message = decode(headers, body, message_id)
            except BadInputError as error:
                message = decode_leniently(headers, body, message_id)
                bad = _delivery(receive, message, token, count)
                # Whoever took it over meanwhile finds the same.
                with contextlib.suppress(LockLostError):
                    await self.dead_letter([bad], reason=BAD_ENVELOPE, detail=str(error))
            else:
                deliveries.append(_delivery(receive, message, token, count))
        return deliveries

    async def complete(self, deliveries: Sequence[Delivery]) -> None:
        self._check_open()
        if deliveries:
            await self._run(settling.Complete(deliveries))

    async def abandon(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, counted: bool = True) -> None:
        self._check_open()
        if deliveries:
            await self._run(settling.Abandon(deliveries, delay=kept(delay), counted=counted))

    async def dead_letter(self, deliveries: Sequence[Delivery], *, reason: str, detail: str = "") -> None:
        self._check_open()
        if deliveries:
            await self._run(settling.MoveToDeadLetters(deliveries, reason=reason, detail=detail))

    async def renew_lock(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        self._check_open()
        if not deliveries:
            return []
        renewed: list[Delivery] = await self._run(settling.Renew(deliveries, lock_duration=self.lock_duration))
        return renewed

    def claim_of(self, delivery: Delivery) -> Claim | None:
        return super().claim_of(delivery) if self._process is not None else None

    def claim_to_all(self, queue: str) -> Claim | None:
        return None if self._process is None else Claim(queue, f"{settling.ALL_FROM}{self._first_token}", math.inf)

    async def _take_back(self, claims: Sequence[Claim]) -> int:
        self._check_open()
        count = await super()._take_back([claim for claim in claims if settling.is_lock_token(claim.token)])
        for claim in claims:
            first = settling.first_token_of(claim.token)
            if first is not None:
                with contextlib.suppress(QueueNotFoundError):
                    count += await self._run(settling.TakeBack(claim.queue, first))
        return count

    async def stats(self, queue: str) -> QueueStats:
        self._check_open()
        return await asyncio.to_thread(self._counting_reader.stats, queue)

    async def position(self, queue: str, message_id: str) -> int | None:
        self._check_open()
        return await asyncio.to_thread(self._counting_reader.position, queue, message_id)

    async def dead_letters(self, queue: str, *, limit: int = 100, after: str | None = None) -> list[DeadLetter]:
        self._check_open()
        return await asyncio.to_thread(self._counting_reader.dead_letters, queue, limit, after)

    async def is_dead_letter(self, queue: str, key: str) -> bool:
        self._check_open()
        return await asyncio.to_thread(self._counting_reader.is_dead_letter, queue, key)

    async def redrive(self, queue: str, keys: Sequence[str] | None = None) -> int:
        count: int = await self._run(settling.Redrive(queue, keys))
        return count

    async def purge(self, queue: str, keys: Sequence[str] | None = None) -> int:
        count: int = await self._run(settling.Purge(queue, keys))
        return count

    # --- request-reply ---

    async def open_inbox(self) -> Inbox:
        self._check_open()
        return await self._inboxes.open(secrets.token_hex(12))

    async def reply(self, address: str, messages: Sequence[Message]) -> None:
        self._check_open()
        rows = encode(messages)
        if rows:
            await self._run(ops.Reply(address, rows))


def _delivery(receive: PendingReceive, message: Message, token: str, count: int) -> Delivery:
    return Delivery(
        message=message,
        queue=receive.queue,
        lock_token=token,
        locked_until=receive.until,
        delivery_count=count + 1,
    )
