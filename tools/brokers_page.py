# ruff: noqa: INP001, T201 - a script that prints
"""Write the table of docs/brokers.md from what the adapters declare; with --check, fail when it is not up to date.

python tools/brokers_page.py [--check]
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import msgspec

from dumbwaiter.brokers import ADAPTERS
from dumbwaiter.brokers.contract import Broker, Capabilities

PAGE = Path(__file__).parent.parent / "docs" / "brokers.md"
BEGIN, END = "<!-- capabilities: made by tools/brokers_page.py -->", "<!-- end of capabilities -->"

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


def cell(capabilities: Capabilities, field: str) -> str:
    """What one adapter declares of one row."""
    value = getattr(capabilities, field)
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
        cells = (cell(adapter.capabilities, field) for adapter in columns.values())
        lines.append(f"| {text} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Write the page or check it; 1 if it was out of date."""
    declared = {field.name for field in msgspec.structs.fields(Capabilities)} - {"strict_priority"}
    if declared != set(ROWS):
        print(f"tools/brokers_page.py has no row for, or too many: {sorted(declared ^ set(ROWS))}")
        return 1
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    wanted = f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"
    if "--check" not in arguments:
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    if page != wanted:
        print(f"{PAGE.name} is not what the adapters declare; run: python tools/brokers_page.py")
    return int(page != wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
