"""Housekeeping that no verb waits for: what dead processes and raw SQL left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dumbwaiter.brokers.sqlite.operations import Operation
from dumbwaiter.brokers.sqlite.wakeups import PROBE

if TYPE_CHECKING:
    from dumbwaiter.brokers.sqlite.transaction import Transaction

MAINTENANCE_SECONDS = 60.0

#: Inboxes that were made by plain SQL, and their replies, are kept for so long.
RAW_INBOX_SECONDS = 3600.0


class Maintain(Operation):
    """Forget raw inboxes after an hour, replies without an inbox, and sockets whose owner is dead."""

    def run(self, tx: Transaction) -> None:
        before = tx.wall - RAW_INBOX_SECONDS
        tx.execute("DELETE FROM inbox WHERE path IS NULL AND created_at < ?", (before,))
        tx.execute(
            "DELETE FROM reply WHERE address NOT IN (SELECT address FROM inbox) "
            "OR (created_at < ? AND address IN (SELECT address FROM inbox WHERE path IS NULL))",
            (before,),
        )
        paths = tx.rows("SELECT path FROM waiter UNION SELECT path FROM inbox WHERE path IS NOT NULL")
        tx.kicks.update((path, PROBE) for (path,) in paths if path != tx.socket_path)
