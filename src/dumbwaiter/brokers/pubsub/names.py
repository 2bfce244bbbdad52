"""Which topics and subscriptions of Pub/Sub make up one queue of ours, and what they are called. Pure.

A topic and its one subscription have the same id. A prefix holds neither ``.`` nor ``~``: behind ``<prefix>.`` comes a
queue's name, written by naming.physical(), with a suffix that no written name ends in; behind ``<prefix>~`` an inbox.
"""

from __future__ import annotations

import re
import secrets
import string

from dumbwaiter.brokers.naming import physical, true_name
from dumbwaiter.policies.lanes import HIGH, LOW, NORMAL

LONGEST = 255
DEAD = 3
"""The part of a queue that holds its dead letters; the others are its lanes, 0 to LANES - 1."""
PARTS = (HIGH, NORMAL, LOW, DEAD)

#: Behind a written ``~`` come two hexadecimal digits, or a z; so none of these is the end of a written name.
_SUFFIXES = {HIGH: "~high", NORMAL: "", LOW: "~low", DEAD: "~dead"}
_ALPHABET = f"{string.ascii_letters}{string.digits}-_.~"
_SECRET = 16


def id_of(prefix: str, queue: str, part: int) -> str:
    """What Pub/Sub calls this *part* of *queue*. That of the usual lane is where other producers publish."""
    return f"{prefix}.{physical(queue, alphabet=_ALPHABET, limit=LONGEST - len(prefix) - 1, suffix=_SUFFIXES[part])}"


def queue_of(prefix: str, id_: str) -> str | None:
    """The queue whose usual lane Pub/Sub calls *id_*; None if it is none. No name of ours is so long that it is cut."""
    written = id_.removeprefix(f"{prefix}.")
    if written == id_ or any(suffix and written.endswith(suffix) for suffix in _SUFFIXES.values()):
        return None
    return true_name(written, alphabet=_ALPHABET)


def is_ours(prefix: str, id_: str) -> bool:
    """Whether *id_* is that of any part of a queue under *prefix*."""
    return id_.startswith(f"{prefix}.")


def new_inbox(prefix: str) -> str:
    """What Pub/Sub calls a fresh inbox, which is its address as well."""
    return f"{prefix}~inbox~{secrets.token_hex(_SECRET)}"


def is_inbox(prefix: str, id_: str) -> bool:
    """Whether *id_* can be an inbox of ours. Callers write addresses, so nothing else must ever be published to."""
    return re.fullmatch(rf"{re.escape(prefix)}~inbox~[0-9a-f]{{{2 * _SECRET}}}", id_) is not None
