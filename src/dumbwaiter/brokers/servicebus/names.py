"""Which queues of Service Bus make up one queue of ours, and what they are called. Pure.

Service Bus tells no capital letters from small ones, and wants a letter or digit at either end. A prefix holds neither
``_`` nor ``.``, so the first of these ends it. Behind a ``_`` stands a queue's name, written by naming.physical(), and
a suffix that no written name ends in; behind a ``.`` an inbox.
"""

from __future__ import annotations

import re
import secrets
import string

from dumbwaiter.brokers.naming import physical, true_name
from dumbwaiter.policies.lanes import HIGH, LOW, NORMAL

LONGEST = 250
#: Behind a written ``_`` come two hexadecimal digits, or a z; so none of these is the end of a written name.
_SUFFIXES = {HIGH: "_high", NORMAL: "", LOW: "_low"}
_ALPHABET = f"{string.ascii_lowercase}{string.digits}-._"
_SECRET = 16


def name_of(prefix: str, queue: str, lane: int) -> str:
    """What Service Bus calls this *lane* of *queue*. The usual one is where other producers send."""
    room = LONGEST - len(prefix) - 1
    name = f"{prefix}_{physical(queue, alphabet=_ALPHABET, limit=room, suffix=_SUFFIXES[lane])}"
    return f"{name[:-1]}_{ord(name[-1]):02x}" if name[-1] in "-." else name


def lane_named(text: str) -> int:
    """The lane that is written *text*. Raises ValueError."""
    lane = int(text)
    if lane not in _SUFFIXES:
        raise ValueError(f"there is no lane {lane}")
    return lane


def all_of(prefix: str) -> str:
    """How all our names begin."""
    return f"{prefix}_"


def is_queue(prefix: str, name: str) -> bool:
    """Whether *name* is the usual lane of one of our queues."""
    written = name.removeprefix(all_of(prefix))
    return written != name and not written.endswith(("_high", "_low"))


def queue_of(prefix: str, name: str) -> str | None:
    """The queue whose usual lane is called *name*; None where that was cut and cannot be read back."""
    return true_name(name.removeprefix(all_of(prefix)), alphabet=_ALPHABET)


def new_inbox(prefix: str) -> str:
    """The name of a fresh inbox, which is its address as well."""
    return f"{prefix}.{secrets.token_hex(_SECRET)}"


def is_inbox(prefix: str, name: str) -> bool:
    """Whether *name* can be an inbox of ours. Callers write addresses, so nothing else must ever be sent to."""
    return re.fullmatch(rf"{re.escape(prefix)}\.[0-9a-f]{{{2 * _SECRET}}}", name) is not None
