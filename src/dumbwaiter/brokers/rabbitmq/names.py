"""The names and arguments of what a queue is made of. Pure.

No queue's name holds a slash, so no two of these meet: ``dumbwaiter.resnet`` is where any producer may publish, and its
companions are ``dumbwaiter.resnet/high``, ``/low``, ``/dead``, ``/delays`` and ``/delay/MILLISECONDS/LANE``.
"""

from __future__ import annotations

from collections.abc import Mapping

from dumbwaiter.policies.lanes import HIGH, LANES, LOW, NORMAL

_SUFFIXES = {HIGH: "/high", NORMAL: "", LOW: "/low"}

NO_LIMIT = 1_000_000_000
"""As x-delivery-limit: never reached. Without any limit RabbitMQ 3.10 puts what is handed back at the end of its queue
rather than at its old place, and 4.0 drops a message after 20 deliveries.
"""
IDLE_DAYS = 7.0
"""A queue of delayed messages is deleted when nobody has declared it for so long beyond its delay. Outages count, and
delete what is in it: so it is long.
"""

Arguments = Mapping[str, str | int]
QUORUM: Arguments = {"x-queue-type": "quorum", "x-delivery-limit": NO_LIMIT}


def lane_name(prefix: str, queue: str, lane: int) -> str:
    """Where the messages of one lane wait."""
    return f"{prefix}.{queue}{_SUFFIXES[lane]}"


def lane_names(prefix: str, queue: str) -> list[str]:
    """Those of all lanes, by lane."""
    return [lane_name(prefix, queue, lane) for lane in range(LANES)]


def dead_name(prefix: str, queue: str) -> str:
    """Where the dead letters are."""
    return f"{prefix}.{queue}/dead"


def register_name(prefix: str, queue: str) -> str:
    """Where the names of the queues for delayed messages stand, one in each message: AMQP cannot list queues."""
    return f"{prefix}.{queue}/delays"


def delay_name(prefix: str, queue: str, lane: int, seconds: float) -> str:
    """Where messages of a lane wait for so long."""
    return f"{prefix}.{queue}/delay/{round(seconds * 1000)}/{_SUFFIXES[lane].strip('/') or 'normal'}"


def delay_arguments(lane: str, seconds: float) -> Arguments:
    """Those of a queue whose messages go to the queue *lane* after so long, none lost on the way."""
    return {
        **QUORUM,
        "x-message-ttl": round(seconds * 1000),
        "x-expires": min(round((seconds + IDLE_DAYS * 86_400) * 1000), 2**32 - 1),
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": lane,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def is_delay_name(prefix: str, queue: str, name: str) -> bool:
    """Whether *name* is one that delay_name() makes for *queue*."""
    return name.startswith(f"{prefix}.{queue}/delay/")


def throwaway_name(prefix: str, unique: str) -> str:
    """A queue that is deleted as soon as it is declared."""
    return f"{prefix}/new/{unique}"
