"""The tables, described for outsiders in docs/sqlite.md, and opening them safely."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import apsw

from dumbwaiter.errors import BrokerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

APPLICATION_ID = 0x64756D62  # "dumb"
SCHEMA_VERSION = 1

#: States of a message. They are written into the file, and SCHEMA, which describes it, shows them as they are there.
READY, DELAYED, LOCKED, DEAD, DONE = range(5)

BUSY_TIMEOUT_MS = 10_000

_WALL_CLOCK = "(julianday('now') - 2440587.5) * 86400.0"

# Only what SQLite 3.38 knows: producers open this file with the library that their system brings.
SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE queue (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

-- state: 0 ready, 1 delayed, 2 locked, 3 dead, 4 done (kept for deduplication).
-- until: end of the delay, of the lock or of the tombstone, in seconds of CLOCK_MONOTONIC.
CREATE TABLE header (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    queue INTEGER NOT NULL REFERENCES queue (id),
    state INTEGER NOT NULL DEFAULT 0,
    priority INTEGER NOT NULL DEFAULT 0,
    until REAL,
    token INTEGER,
    delivery_count INTEGER NOT NULL DEFAULT 0,
    sent_at REAL NOT NULL DEFAULT ({_WALL_CLOCK}),
    id TEXT NOT NULL
);
CREATE UNIQUE INDEX header_id ON header (queue, id);
CREATE INDEX ready ON header (queue, priority DESC, seq) WHERE state = 0;
CREATE INDEX delayed ON header (queue, until) WHERE state = 1;
CREATE INDEX locked ON header (queue, until) WHERE state = 2;
CREATE INDEX dead ON header (queue, seq) WHERE state = 3;
CREATE INDEX done ON header (seq, until) WHERE state = 4;

CREATE TABLE payload (seq INTEGER PRIMARY KEY, headers TEXT, body BLOB NOT NULL);

CREATE TABLE death (seq INTEGER PRIMARY KEY, reason TEXT NOT NULL, detail TEXT NOT NULL, dead_at REAL NOT NULL);

CREATE TABLE waiter (queue INTEGER NOT NULL, path TEXT NOT NULL, UNIQUE (queue, path));

CREATE TABLE inbox (
    address TEXT PRIMARY KEY,
    path TEXT,
    created_at REAL NOT NULL DEFAULT ({_WALL_CLOCK})
) WITHOUT ROWID;

CREATE TABLE reply (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    address TEXT NOT NULL,
    headers TEXT,
    body BLOB NOT NULL,
    created_at REAL NOT NULL DEFAULT ({_WALL_CLOCK})
);
CREATE INDEX reply_address ON reply (address, seq);

CREATE VIEW message AS
SELECT
    h.seq AS seq,
    q.name AS queue,
    CASE h.state WHEN 0 THEN 'ready' WHEN 1 THEN 'delayed' WHEN 2 THEN 'locked' WHEN 3 THEN 'dead' ELSE 'done' END
        AS state,
    h.priority AS priority,
    h.delivery_count AS delivery_count,
    h.sent_at AS sent_at,
    h.id AS id,
    p.headers AS headers,
    p.body AS body
FROM header h JOIN queue q ON q.id = h.queue LEFT JOIN payload p ON p.seq = h.seq
WHERE h.state <> 4;

CREATE TRIGGER message_insert INSTEAD OF INSERT ON message BEGIN
    SELECT RAISE(ABORT, 'no queue of that name: start a worker for it first, or INSERT INTO queue(name)')
    WHERE NOT EXISTS (SELECT 1 FROM queue WHERE name = NEW.queue);
    SELECT RAISE(ABORT, 'headers must be NULL or a JSON object of CloudEvents attributes')
    WHERE NEW.headers IS NOT NULL
        AND CASE WHEN json_valid(NEW.headers) THEN json_type(NEW.headers) ELSE '' END <> 'object';
    -- Not INSERT OR IGNORE: the conflict clause of a producer's INSERT OR REPLACE would win over it.
    INSERT INTO header (queue, priority, id)
    SELECT wanted.queue, wanted.priority, wanted.id FROM (
        SELECT
            (SELECT id FROM queue WHERE name = NEW.queue) AS queue,
            CAST(coalesce(NEW.priority, json_extract(NEW.headers, '$.priority'), 0) AS INTEGER) AS priority,
            coalesce(
                nullif(CAST(NEW.id AS TEXT), ''),
                nullif(CAST(json_extract(NEW.headers, '$.id') AS TEXT), ''),
                printf('%012x', CAST({_WALL_CLOCK} * 1000 AS INTEGER)) || lower(hex(randomblob(10)))
            ) AS id
    ) AS wanted
    WHERE NOT EXISTS (SELECT 1 FROM header h WHERE h.queue = wanted.queue AND h.id = wanted.id);
    INSERT INTO payload (seq, headers, body)
    SELECT last_insert_rowid(), NEW.headers, CAST(coalesce(NEW.body, '') AS BLOB) WHERE changes() = 1;
END;

CREATE VIEW dead_letter AS
SELECT h.seq AS seq, q.name AS queue, h.id AS id, d.reason AS reason, d.detail AS detail, d.dead_at AS dead_at,
    h.delivery_count AS delivery_count, p.headers AS headers, p.body AS body
FROM header h JOIN queue q ON q.id = h.queue JOIN death d ON d.seq = h.seq JOIN payload p ON p.seq = h.seq
WHERE h.state = 3;
"""


def has_wal_reset_bug(version: str) -> bool:
    """Whether this SQLite version can corrupt a database in WAL mode that several processes write.

    Source: https://sqlite.org/wal.html#walresetbug. Fixed in 3.51.3, and in 3.50.7 and 3.44.6 for their series.
    """
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    fixed_in = {(3, 50): 7, (3, 44): 6}.get((major, minor))
    return (major, minor, patch) < (3, 51, 3) if fixed_in is None else patch < fixed_in


def refuse_wal_reset_bug(version: str) -> None:
    """Raise BrokerUnavailableError when *version* of SQLite has the WAL-reset bug."""
    if has_wal_reset_bug(version):
        raise BrokerUnavailableError(
            f"SQLite {version} may corrupt a shared database (its WAL-reset bug, fixed in 3.51.3); "
            "install a newer apsw: pip install --upgrade apsw"
        )


def connect(path: Path, *, read_only: bool = False) -> apsw.Connection:
    """A connection that never checkpoints by itself: checkpoints happen under the turnstile only."""
    connection = apsw.Connection(str(path), statementcachesize=200)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    if read_only:
        connection.execute("PRAGMA query_only = 1")
    else:
        connection.execute("PRAGMA cache_size = -8000")
    return connection


def prepare(connection: apsw.Connection, path: Path, *, boot: str, clock: Callable[[], float] = time.time) -> None:
    """Create the tables in an empty file, or check those of an existing one; forget the locks of an earlier boot.

    The caller holds the turnstile. Raises BrokerUnavailableError for a file that is not ours.
    """
    application, version = connection.pragma("application_id"), connection.pragma("user_version")
    is_empty = not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
    if not is_empty and application != APPLICATION_ID:
        raise BrokerUnavailableError(f"{path} holds the tables of another program; name another file")
    if not is_empty and version != SCHEMA_VERSION:
        raise BrokerUnavailableError(
            f"{path} has schema version {version}, this dumbwaiter needs {SCHEMA_VERSION}; "
            "install the dumbwaiter that wrote it, or name another file"
        )
    if connection.pragma("journal_mode") != "wal" and connection.pragma("journal_mode", "wal") != "wal":
        raise BrokerUnavailableError(f"the file system of {path} does not support SQLite's WAL mode; use a local disk")
    if is_empty:
        connection.execute(
            f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; "
            f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
        )
    _start_boot(connection, boot, clock() - time.monotonic())


def _start_boot(connection: apsw.Connection, boot: str, offset: float) -> None:
    """Under another boot id every lock's holder is dead, and delays are carried over by the wall clock."""
    rows: list[Any] = connection.execute("SELECT key, value FROM meta").fetchall()
    known = dict(rows)
    if known.get("boot_id") == boot:
        return
    shift = known.get("clock_offset", offset) - offset
    with connection:
        connection.execute(f"UPDATE header SET state = {READY}, until = NULL WHERE state = {LOCKED}")
        connection.execute("UPDATE header SET until = until + ? WHERE until IS NOT NULL", (shift,))
        connection.execute("DELETE FROM waiter; DELETE FROM reply; DELETE FROM inbox")
        connection.execute("REPLACE INTO meta VALUES ('boot_id', ?), ('clock_offset', ?)", (boot, offset))
