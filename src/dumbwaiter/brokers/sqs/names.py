"""Which queues of SQS make up one queue of ours, and what they are called. Pure.

A prefix holds no ``_``, so the first one ends it. What stands behind is a queue's name, written by naming.physical(),
and a suffix that no written name ends in; or, after a second ``_``, an inbox.
"""

from __future__ import annotations

import re
import secrets
import string

from dumbwaiter.brokers.naming import physical, true_name
from dumbwaiter.policies.lanes import HIGH, LOW, NORMAL

LONGEST = 80
DEAD = 3
"""The part of a queue that holds its dead letters; the others are its lanes, 0 to LANES - 1."""
PARTS = (HIGH, NORMAL, LOW, DEAD)

#: Behind a written ``_`` come two hexadecimal digits, or a z; so none of these is the end of a written name.
_SUFFIXES = {HIGH: "_high", NORMAL: "", LOW: "_low", DEAD: "_dlq"}
_ALPHABET = f"{string.ascii_letters}{string.digits}-_"
_SECRET = 16


def name_of(prefix: str, queue: str, part: int) -> str:
    """What SQS calls this *part* of *queue*. That of the usual lane is where other producers send."""
    room = LONGEST - len(prefix) - 1
    return f"{prefix}_{physical(queue, alphabet=_ALPHABET, limit=room, suffix=_SUFFIXES[part])}"


def all_of(prefix: str) -> str:
    """How all our names begin."""
    return f"{prefix}_"


def queue_of(prefix: str, name: str) -> tuple[str | None, bool]:
    """The queue whose usual lane SQS calls *name*, and whether it is one at all: a name that was cut cannot be read
    back, so that it is (None, True).
    """
    written = name.removeprefix(all_of(prefix))
    if written == name or written.startswith("_") or "." in written or written.endswith(tuple(_others())):
        return None, False
    return true_name(written, alphabet=_ALPHABET), True


def _others() -> list[str]:
    return [suffix for suffix in _SUFFIXES.values() if suffix]


def new_inbox(prefix: str) -> str:
    """What SQS calls a fresh inbox, which is its address as well."""
    return f"{prefix}__{secrets.token_hex(_SECRET)}"


def is_inbox(prefix: str, name: str) -> bool:
    """Whether *name* can be an inbox of ours. Callers write addresses, so nothing else must ever be sent to."""
    return re.fullmatch(rf"{re.escape(prefix)}__[0-9a-f]{{{2 * _SECRET}}}", name) is not None
