"""Names of topics. Pure: ``persistent://tenant/namespace/prefix.queue.part``, where the part tells what it is for.

Names of queues are letters, digits, ``.``, ``_`` and ``-``, all of which Pulsar takes; the part behind the last dot
keeps a queue whose name ends in ``-partition-1`` from being taken for a partition.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dumbwaiter.brokers.pulsar.location import Location
from dumbwaiter.policies.lanes import HIGH, LOW, NORMAL

SUBSCRIPTION = "dumbwaiter"
"""Of every topic that keeps something: what it has not acknowledged is what there is."""
_LANES = {HIGH: "high", NORMAL: "normal", LOW: "low"}


class Names(msgspec.Struct, frozen=True):
    """The topics under a *base*, ``tenant/namespace/prefix``."""

    base: str

    @classmethod
    def at(cls, location: Location) -> Names:
        """Those of *location*."""
        return cls(f"{location.tenant}/{location.namespace}/{location.prefix}")

    def lane(self, queue: str, lane: int) -> str:
        """Messages of *queue* with such a priority."""
        return f"persistent://{self.base}.{queue}.{_LANES[lane]}"

    def lanes(self, queue: str) -> Sequence[str]:
        """All of them, by lane."""
        return [self.lane(queue, lane) for lane in sorted(_LANES)]

    def delayed(self, queue: str) -> str:
        """Messages of *queue* that are not due yet."""
        return f"persistent://{self.base}.{queue}.delayed"

    def later(self, lane: str) -> str:
        """delayed() of the queue whose *lane* is the topic."""
        return f"{lane.rpartition('.')[0]}.delayed"

    def dead(self, queue: str) -> str:
        """Dead letters of *queue*."""
        return f"persistent://{self.base}.{queue}.dead"

    @property
    def register(self) -> str:
        """Which queues there are."""
        return f"persistent://{self.base}.queues"

    @property
    def check(self) -> str:
        """Takes a message now and then, to see whether messages are taken."""
        return f"persistent://{self.base}.check"

    def inbox(self, unique: str) -> str:
        """Replies to one who asks."""
        return f"non-persistent://{self.base}.inbox.{unique}"


def is_topic(text: str) -> bool:
    """Whether *text* is the whole name of a topic, as a reply address must be."""
    domain, _, path = text.partition("://")
    parts = path.split("/")
    return domain in ("persistent", "non-persistent") and len(parts) == 3 and all(parts) and text.isprintable()
