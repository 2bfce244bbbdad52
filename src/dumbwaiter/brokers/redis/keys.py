"""What lies where: the keys of a queue and of an inbox, and the fields of an entry. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from dumbwaiter.envelope import to_attributes
from dumbwaiter.errors import BadInputError
from dumbwaiter.message import Message
from dumbwaiter.policies.lanes import HIGH, LOW, NORMAL

GROUP = "dumbwaiter"
"""The consumer group of all lanes: whatever is pending in it is locked, or waits for another try."""
WAKE_GROUP = "dumbwaiter-wake"
"""A second group, which only wakes brokers that wait; nothing is ever pending in it."""
BODY = b"body"
MOST_ATTRIBUTES = 1000
"""A script of the server's cannot hand on an entry with some thousands of fields."""
_ATTRIBUTE = "ce-"
_LANE_NAMES = {HIGH: ":high", NORMAL: "", LOW: ":low"}
_DEAD_KEY = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


class QueueKeys(NamedTuple):
    """The keys of one queue, in the order in which the scripts want them. See docs/brokers/redis.md."""

    high: str
    normal: str
    low: str
    bell: str
    locks: str
    back: str
    later: str
    scheduled: str
    dead: str
    why: str
    ids: str


def keys_of(prefix: str, queue: str) -> QueueKeys:
    """All keys of *queue*. What stands in braces says to a cluster that they belong on one node."""
    base = f"{prefix}:{{{queue}}}"
    lanes = (f"{base}{_LANE_NAMES[lane]}" for lane in (HIGH, NORMAL, LOW))
    return QueueKeys(*lanes, *(f"{base}:{name}" for name in QueueKeys._fields[3:]))


def registry_key(prefix: str) -> str:
    """The set of all queues' names."""
    return f"{prefix}:queues"


class InboxKeys(NamedTuple):
    """The keys of all inboxes of one broker object: the numbers of the open ones, and the stream of their replies."""

    open: str
    replies: str


def inbox_keys(prefix: str, owner: str) -> InboxKeys:
    """The keys of the inboxes of *owner*."""
    base = f"{prefix}:inbox:{{{owner}}}"
    return InboxKeys(f"{base}:open", base)


def inbox_address(prefix: str, owner: str, number: int) -> str:
    """Where replies to inbox *number* of *owner* go."""
    return f"{prefix}:inbox:{owner}/{number}"


def parse_inbox_address(prefix: str, address: str) -> tuple[str, str] | None:
    """The owner and the number in *address*; None when it is no inbox of this prefix, for anybody may write one."""
    found = re.fullmatch(rf"{re.escape(prefix)}:inbox:([0-9a-f]{{1,64}})/([0-9]{{1,9}})", address)
    return None if found is None else (found[1], found[2])


def is_dead_key(key: str) -> bool:
    """Whether *key* can be that of a dead letter, which is an id in a stream."""
    return _DEAD_KEY.fullmatch(key) is not None


def fields_of(message: Message) -> list[str | bytes]:
    """The fields of *message*'s entry, name after name and value. Raises BadInputError for too many attributes."""
    attributes = to_attributes(message)
    if len(attributes) > MOST_ATTRIBUTES:
        raise BadInputError(f"message {message.id!r} has {too_many(len(attributes))}")
    fields: list[str | bytes] = [BODY, message.body]
    for name, value in attributes.items():
        fields += (_ATTRIBUTE + name, value)
    return fields


def too_many(count: int) -> str:
    """What is wrong with so many attributes."""
    return f"{count} attributes, and at most {MOST_ATTRIBUTES} can be handed on here; write them into the body"


def read_fields(fields: Sequence[bytes]) -> tuple[Mapping[str, str], bytes]:
    """The attributes and the body of an entry, whoever wrote it: its field ``body``, or else its first field's value.

    Attributes that are not UTF-8 are shown with backslashes.
    """
    names, values = fields[::2], fields[1::2]
    body_at = names.index(BODY) if BODY in names else 0
    pairs = enumerate(zip(names, values, strict=True))
    return {_name(name): _text(value) for i, (name, value) in pairs if i != body_at}, values[body_at]


@lru_cache(maxsize=1024)
def _name(raw: bytes) -> str:
    return _text(raw)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
