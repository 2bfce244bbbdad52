"""What lies in the server: the names of a queue's streams, subjects and consumers, and how they are configured. Pure.

Under the prefix ``dumbwaiter``, a queue ``resnet`` is

* the stream ``dumbwaiter+resnet`` with the subjects ``dumbwaiter.high.resnet``, ``.normal.`` and ``.low.``, one for
  each lane of priorities, ``dumbwaiter.again.resnet`` for what was handed back, which is served before all of them,
  and ``dumbwaiter.later.resnet.*`` for what waits for its time;
* a durable consumer for each of the first four, named after its lane: a work queue refuses two that overlap;
* the stream ``dumbwaiter+resnet+dead`` with the subject ``dumbwaiter.dead.resnet``.
"""

from __future__ import annotations

import functools
import string
from typing import Any

import msgspec

from dumbwaiter.brokers.naming import physical
from dumbwaiter.policies.lanes import LANES, lane_of

AGAIN = "again"
LANE_NAMES = ("high", "normal", "low", AGAIN)
"""Lanes 0 to LANES - 1 of the priorities, then the one of messages that were handed back."""
AGAIN_LANE = LANES

QUEUE_KEY = "dumbwaiter-queue"
"""Where a stream's metadata keep the true name of its queue."""
KIND_KEY = "dumbwaiter-kind"

DUPLICATE_WINDOW = 120.0
"""Seconds for which a message id that was sent is remembered, and a second send of it dropped."""

LONGEST_OWN_LOCK, SHORTEST_OWN_LOCK = 30.0, 2.0
"""Seconds of ack_wait: signs of life keep longer locks, and shorter ones are ended by whoever holds them."""

MSG_SIZE_ROOM = 4096
"""Bytes of max_payload that no message in a queue takes, so that there is room for what a dead letter says besides."""

_ALPHABET = f"{string.ascii_letters}{string.digits}-_="
_LONGEST = 180  # of a stream's 255
_NS = 1_000_000_000


class Names(msgspec.Struct, frozen=True):
    """The names of one queue. *subjects* and *consumers* are in the order of LANE_NAMES."""

    queue: str
    stream: str
    subjects: tuple[str, ...]
    later: str
    dead_stream: str
    dead_subject: str

    @property
    def lanes(self) -> str:
        """The filter that takes the subjects of all lanes, and none of what waits for its time."""
        prefix, _, token = self.subjects[0].split(".")
        return f"{prefix}.*.{token}"

    def subject_of(self, priority: int) -> str:
        """Where a message of *priority* is published."""
        return self.subjects[lane_of(priority)]

    @property
    def again(self) -> str:
        """Where a message that was handed back is published."""
        return self.subjects[AGAIN_LANE]


@functools.lru_cache(maxsize=1024)
def names_of(prefix: str, queue: str) -> Names:
    """The names of *queue* under *prefix*."""
    token = physical(queue, alphabet=_ALPHABET, limit=_LONGEST)
    return Names(
        queue=queue,
        # A plus is in no prefix and in no token, so that no two queues of any two prefixes share a stream.
        stream=f"{prefix}+{token}",
        subjects=tuple(f"{prefix}.{lane}.{token}" for lane in LANE_NAMES),
        later=f"{prefix}.later.{token}",
        dead_stream=f"{prefix}+{token}+dead",
        dead_subject=f"{prefix}.dead.{token}",
    )


def stream_config(names: Names, *, replicas: int, max_payload: int, schedules: bool) -> dict[str, Any]:
    """The work queue. Nothing in it grows old or is thrown out to make room.

    max_msg_size leaves room in max_payload for what a dead letter has beside its message.
    """
    subjects = [*names.subjects, f"{names.later}.*"] if schedules else [*names.subjects]
    return {
        **_common(names.stream, names.queue, "queue", replicas),
        "subjects": subjects,
        "retention": "workqueue",
        "max_msg_size": max_payload - MSG_SIZE_ROOM,
        **({"allow_msg_schedules": True} if schedules else {}),
    }


def dead_stream_config(names: Names, *, replicas: int) -> dict[str, Any]:
    """The dead letters."""
    common = _common(names.dead_stream, names.queue, "dead", replicas)
    return {**common, "subjects": [names.dead_subject], "retention": "limits"}


def check_stream_config(prefix: str, *, replicas: int) -> dict[str, Any]:
    """One message at most: what check() writes to see that writing works."""
    common = _common(f"{prefix}+check", "", "check", replicas)
    return {**common, "subjects": [check_subject(prefix)], "retention": "limits", "max_msgs": 1}


def check_subject(prefix: str) -> str:
    """Where check() writes."""
    return f"{prefix}.check"


def own_lock_of(lock_duration: float) -> float:
    """The server's own lock, in seconds, of a queue that is created with *lock_duration*."""
    return min(max(lock_duration, SHORTEST_OWN_LOCK), LONGEST_OWN_LOCK)


def consumer_config(names: Names, lane: int, *, lock_duration: float) -> dict[str, Any]:
    """The durable pull consumer of *lane*. It never gives up on a message: the runtime above counts deliveries."""
    return {
        "durable_name": LANE_NAMES[lane],
        "filter_subject": names.subjects[lane],
        "ack_policy": "explicit",
        "ack_wait": int(own_lock_of(lock_duration) * _NS),
        "deliver_policy": "all",
        "max_deliver": -1,
        "max_ack_pending": -1,
        "max_waiting": 10_000,
        "replay_policy": "instant",
    }


def _common(stream: str, queue: str, kind: str, replicas: int) -> dict[str, Any]:
    return {
        "name": stream,
        "storage": "file",
        "num_replicas": replicas,
        "discard": "old",
        "max_age": 0,
        "max_bytes": -1,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_msg_size": -1,
        "duplicate_window": int(DUPLICATE_WINDOW * _NS),
        "allow_direct": True,
        "metadata": {QUEUE_KEY: queue, KIND_KEY: kind},
    }
