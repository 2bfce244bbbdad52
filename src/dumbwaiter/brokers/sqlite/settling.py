"""Settling locked messages, by their fencing tokens.

A lock that ran out counts as held until somebody else receives the message or its holder gives it back:
work that is finished is not thrown away because it was late. Only renewing is refused then.
"""

from __future__ import annotations

import re
from array import array
from typing import TYPE_CHECKING, Any

import apsw

from dumbwaiter.brokers.sqlite.operations import Operation, has_ready
from dumbwaiter.brokers.sqlite.rows import seq_of
from dumbwaiter.brokers.sqlite.schema import DEAD, DELAYED, DONE, LOCKED, READY
from dumbwaiter.brokers.sqlite.transaction import REMEMBER_DONE_SECONDS
from dumbwaiter.errors import LockLostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dumbwaiter.brokers.sqlite.transaction import Transaction
    from dumbwaiter.message import Delivery


TOKENS_OF_ONE = 2**32
"""The tokens of one broker object lie together, and begin at a multiple of this."""
ALL_FROM = "all from "
"""What a claim to all that a broker object holds begins with, before its first token."""
_LOCK_TOKEN = re.compile(r"[0-9]{1,19}\.[0-9]{1,19}")


def lock_token(seq: int, token: int) -> str:
    """The lock token of the contract: which message, and the fence."""
    return f"{seq}.{token}"


def parse_lock_token(text: str) -> tuple[int, int]:
    """Message and fence of a lock token."""
    seq, _, token = text.partition(".")
    return int(seq), int(token)


def is_lock_token(text: str) -> bool:
    """Whether parse_lock_token can read *text*, and SQLite the numbers."""
    return _LOCK_TOKEN.fullmatch(text) is not None and max(parse_lock_token(text)) < 2**63


def first_token_of(text: str) -> int | None:
    """The first token of the broker object whose claim to all that it holds says *text*; None for any other text."""
    number = text.removeprefix(ALL_FROM)
    if number == text or not re.fullmatch(r"[0-9]{1,19}", number):
        return None
    first = int(number)
    return first if first % TOKENS_OF_ONE == 0 and first < 2**62 else None


class Settle(Operation):
    """Base of the settling operations: finds out which locks are lost when not all are held."""

    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        super().__init__()
        self.deliveries = list(deliveries)
        self.locks = [parse_lock_token(delivery.lock_token) for delivery in self.deliveries]

    def by_token(self) -> dict[int, array[int]]:
        """The messages, grouped by the receive that locked them."""
        groups: dict[int, array[int]] = {}
        for seq, token in self.locks:
            groups.setdefault(token, array("q")).append(seq)
        return groups

    def update(self, tx: Transaction, sql: str, parameters: tuple[Any, ...] = ()) -> int:
        """Run *sql*, which ends in ``token = ? AND seq IN carray(?)``, for each receive; how many rows it changed."""
        changed = 0
        for token, seqs in self.by_token().items():
            tx.execute(sql, (*parameters, token, apsw.carray(seqs)))
            changed += tx.changes()
        return changed

    def seqs(self) -> array[int]:
        """All the messages."""
        return array("q", [seq for seq, _ in self.locks])

    def states(self, tx: Transaction) -> dict[int, tuple[int, int | None, float | None]]:
        """State, token and until of those messages that exist."""
        rows = tx.rows(
            "SELECT seq, state, token, until FROM header WHERE seq IN carray(?)", (apsw.carray(self.seqs()),)
        )
        return {row[0]: row[1:] for row in rows}


class Complete(Settle):
    """Delete bodies and leave the headers as tombstones, which refuse the same ids for a while."""

    durable = True

    def run(self, tx: Transaction) -> None:
        changed = self.update(
            tx,
            f"UPDATE header SET state = {DONE}, until = ?, token = NULL WHERE state IN ({READY}, {LOCKED}) "
            "AND token = ? AND seq IN carray(?)",
            (tx.now + REMEMBER_DONE_SECONDS,),
        )
        tx.completed += changed
        if changed == len(self.locks):
            tx.execute("DELETE FROM payload WHERE seq IN carray(?)", (apsw.carray(self.seqs()),))
            return
        states = self.states(tx)
        done = array("q", [seq for seq, row in states.items() if row[0] == DONE])
        if done:
            tx.execute("DELETE FROM payload WHERE seq IN carray(?)", (apsw.carray(done),))
        # Gone, or done by whomever, is what the caller wanted; anything else belongs to someone else by now.
        lost = [
            delivery
            for delivery, (seq, _) in zip(self.deliveries, self.locks, strict=True)
            if seq in states and states[seq][0] != DONE
        ]
        if lost:
            raise LockLostError(lost)


class Fenced(Settle):
    """Base of the operations that a lost lock must not reach, not even for a message that is gone."""

    def held(self, tx: Transaction, *, strictly: bool = False) -> list[int]:
        """The places in *deliveries* whose locks are held; *strictly* also leaves out those that ran out."""
        states = self.states(tx)
        held = []
        for place, (seq, token) in enumerate(self.locks):
            state, current, until = states.get(seq, (DONE, None, None))
            is_held = current == token and (state == LOCKED or (state == READY and not strictly))
            if is_held and not (strictly and until is not None and until <= tx.now):
                held.append(place)
        return held

    def raise_for_lost(self, held: list[int], renewed: Sequence[Delivery] = ()) -> None:
        """Raise LockLostError for all deliveries whose places are not in *held*."""
        if len(held) != len(self.deliveries):
            kept = set(held)
            raise LockLostError([d for place, d in enumerate(self.deliveries) if place not in kept], renewed)

    def queue_ids(self, tx: Transaction, held: list[int]) -> list[tuple[int, int]]:
        """Queue number and message of each held place."""
        return [(tx.queue_id(self.deliveries[place].queue), self.locks[place][0]) for place in held]


class Abandon(Fenced):
    """Make messages ready again, at once or after a delay."""

    durable = True

    def __init__(self, deliveries: Sequence[Delivery], *, delay: float, counted: bool) -> None:
        super().__init__(deliveries)
        self.delay = delay
        self.counted = counted

    def run(self, tx: Transaction) -> None:
        held = self.held(tx)
        state, until = (DELAYED, tx.now + self.delay) if self.delay > 0 else (READY, None)
        pairs = self.queue_ids(tx, held)
        if pairs:
            tx.execute(
                "UPDATE header SET state = ?, until = ?, token = NULL, delivery_count = delivery_count - ? "
                "WHERE seq IN carray(?)",
                (state, until, int(not self.counted), apsw.carray(array("q", [seq for _, seq in pairs]))),
            )
        # A delayed message wakes somebody too: whoever waits must learn of the new time.
        for queue, _ in pairs:
            tx.made_ready[queue] += 1
        self.raise_for_lost(held)


class HandBack(Operation):
    """Return locks, uncounted: those of one receive, or all of a broker whose tokens lie between two numbers."""

    durable = True

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.first = first
        self.last = last

    def run(self, tx: Transaction) -> None:
        for (queue,) in tx.rows("SELECT id FROM queue"):
            tx.execute(
                f"UPDATE header INDEXED BY locked SET state = {READY}, until = NULL, token = NULL, "
                f"delivery_count = delivery_count - 1 WHERE queue = ? AND state = {LOCKED} AND token BETWEEN ? AND ?",
                (queue, self.first, self.last),
            )
            # A closing broker may have been woken for a message that it will not take: then someone else should.
            returned = tx.changes()
            if returned or has_ready(tx, queue):
                tx.made_ready[queue] += max(returned, 1)


class TakeBack(Operation):
    """Return the locks of a dead broker of *queue*, counted; its tokens lie from *first* on. Returns how many."""

    durable = True

    def __init__(self, queue: str, first: int) -> None:
        super().__init__()
        self.queue = queue
        self.first = first

    def run(self, tx: Transaction) -> int:
        queue = tx.queue_id(self.queue)
        tx.execute(
            f"UPDATE header INDEXED BY locked SET state = {READY}, until = NULL, token = NULL "
            f"WHERE queue = ? AND state = {LOCKED} AND token BETWEEN ? AND ?",
            (queue, self.first, self.first + TOKENS_OF_ONE - 1),
        )
        count: int = tx.changes()
        tx.made_ready[queue] += count
        return count


class MoveToDeadLetters(Fenced):
    """Take messages out of the queue, for a person to look at."""

    durable = True

    def __init__(self, deliveries: Sequence[Delivery], *, reason: str, detail: str) -> None:
        super().__init__(deliveries)
        self.reason = reason
        # A traceback may hold half a surrogate pair, which no text in the file can.
        self.detail = detail.encode(errors="replace").decode()

    def run(self, tx: Transaction) -> None:
        held = self.held(tx)
        for place in held:
            seq = self.locks[place][0]
            tx.execute(f"UPDATE header SET state = {DEAD}, until = NULL, token = NULL WHERE seq = ?", (seq,))
            tx.execute("INSERT INTO death VALUES (?, ?, ?, ?)", (seq, self.reason, self.detail, tx.wall))
        self.raise_for_lost(held)


class Renew(Fenced):
    """Extend locks; the result is the new end of all that were renewed."""

    def __init__(self, deliveries: Sequence[Delivery], *, lock_duration: float) -> None:
        super().__init__(deliveries)
        self.lock_duration = lock_duration

    def run(self, tx: Transaction) -> list[Delivery]:
        held = self.held(tx, strictly=True)
        until = tx.now + self.lock_duration
        seqs = array("q", [self.locks[place][0] for place in held])
        if seqs:
            tx.execute("UPDATE header SET until = ? WHERE seq IN carray(?)", (until, apsw.carray(seqs)))
        renewed = [_until(self.deliveries[place], until) for place in held]
        self.raise_for_lost(held, renewed)
        return renewed


def _until(delivery: Delivery, until: float) -> Delivery:
    return type(delivery)(
        message=delivery.message,
        queue=delivery.queue,
        lock_token=delivery.lock_token,
        locked_until=until,
        delivery_count=delivery.delivery_count,
    )


class Redrive(Operation):
    """Send dead letters again: at the end of their queue, as if new."""

    durable = True

    def __init__(self, queue: str, keys: Sequence[str] | None) -> None:
        super().__init__()
        self.queue = queue
        self.keys = keys

    def run(self, tx: Transaction) -> int:
        queue = tx.queue_id(self.queue)
        seqs = dead_seqs(tx, queue, self.keys)
        for seq in seqs:
            row = tx.one("SELECT priority, typeof(id) = 'text', CAST(id AS BLOB) FROM header WHERE seq = ?", (seq,))
            # The tombstone of the old place would refuse the id of the new one, so it goes first.
            tx.execute("DELETE FROM header WHERE seq = ?", (seq,))
            tx.execute(
                "INSERT INTO header (queue, sent_at, priority, id) "
                "VALUES (?1, ?2, ?3, CASE WHEN ?4 THEN CAST(?5 AS TEXT) ELSE ?5 END)",
                (queue, tx.wall, *row),
            )
            tx.execute("UPDATE payload SET seq = last_insert_rowid() WHERE seq = ?", (seq,))
            tx.execute("DELETE FROM death WHERE seq = ?", (seq,))
        tx.made_ready[queue] += len(seqs)
        return len(seqs)


class Purge(Operation):
    """Delete dead letters, without a tombstone: their ids may come again."""

    durable = True

    def __init__(self, queue: str, keys: Sequence[str] | None) -> None:
        super().__init__()
        self.queue = queue
        self.keys = keys

    def run(self, tx: Transaction) -> int:
        seqs = dead_seqs(tx, tx.queue_id(self.queue), self.keys)
        for table in ("header", "payload", "death"):
            tx.executemany(f"DELETE FROM {table} WHERE seq = ?", [(seq,) for seq in seqs])
        return len(seqs)


def dead_seqs(tx: Transaction, queue: int, keys: Sequence[str] | None) -> list[int]:
    """The dead letters of *queue*, oldest first; only those named by *keys* unless that is None."""
    sql = f"SELECT seq FROM header INDEXED BY dead WHERE queue = ? AND state = {DEAD}"
    if keys is None:
        return [seq for (seq,) in tx.rows(sql, (queue,))]
    wanted = array("q", [seq for key in keys if (seq := seq_of(key)) is not None])
    if not wanted:
        return []
    return [seq for (seq,) in tx.rows(f"{sql} AND seq IN carray(?) ORDER BY seq", (queue, apsw.carray(wanted)))]
