"""Which topics make up one queue, and what they are called. Pure.

Kafka takes ``.`` and ``_`` for the same letter where it names its metrics, and refuses a topic that would collide.
So a ``.`` stands only between the parts of a name, and a written queue holds none: see naming.physical().
"""

from __future__ import annotations

import re
import secrets
import string
from functools import lru_cache

from dumbwaiter.brokers.naming import physical, true_name
from dumbwaiter.policies.lanes import HIGH, LOW, NORMAL

LONGEST = 249
DEAD = 3
"""The part of a queue that holds its dead letters; the others are its lanes, 0 to LANES - 1."""
LEDGER = 4
"""The part of a queue that says who holds what."""
PARTS = (HIGH, NORMAL, LOW, DEAD, LEDGER)

_SUFFIXES = {HIGH: ".high", NORMAL: "", LOW: ".low", DEAD: ".dead", LEDGER: ".ledger"}
_ALPHABET = f"{string.ascii_letters}{string.digits}-_"
_SECRET = 16
INBOXES = "..inbox"
"""No queue's topic: what a queue is written as is never empty."""


@lru_cache(1024)
def topic_of(prefix: str, queue: str, part: int) -> str:
    """What Kafka calls this *part* of *queue*. That of the usual lane is where other producers send."""
    room = LONGEST - len(prefix) - 1
    return f"{prefix}.{physical(queue, alphabet=_ALPHABET, limit=room, suffix=_SUFFIXES[part])}"


def queue_of(prefix: str, topic: str) -> str | None:
    """The queue whose ledger Kafka calls *topic*; None when it is no ledger of ours, or has a name that was cut."""
    start, end = f"{prefix}.", _SUFFIXES[LEDGER]
    if not (topic.startswith(start) and topic.endswith(end)):
        return None
    written = topic[len(start) : -len(end)]
    return None if not written or "." in written else true_name(written, alphabet=_ALPHABET)


def inbox_topic(prefix: str) -> str:
    """Where the replies to all gateways go."""
    return f"{prefix}{INBOXES}"


def new_inbox(prefix: str, partition: int) -> str:
    """The address of a fresh inbox, whose replies go to that *partition*."""
    return f"{prefix}{INBOXES}.{partition}.{secrets.token_hex(_SECRET)}"


def partition_of(prefix: str, address: str) -> int | None:
    """Which partition holds the replies to *address*; None when it is none of ours: callers write addresses."""
    found = re.fullmatch(rf"{re.escape(prefix + INBOXES)}\.([0-9]{{1,4}})\.[0-9a-f]{{{2 * _SECRET}}}", address)
    return None if found is None else int(found[1])
