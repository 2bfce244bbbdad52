"""What is set for a queue, as the management endpoint reads and writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_DEFAULTS = {
    "LockDuration": "PT1M",
    "MaxSizeInMegabytes": "1024",
    "RequiresDuplicateDetection": "false",
    "RequiresSession": "false",
    "DefaultMessageTimeToLive": "P10675199DT2H48M5.4775807S",
    "DeadLetteringOnMessageExpiration": "false",
    "DuplicateDetectionHistoryTimeWindow": "PT10M",
    "MaxDeliveryCount": "10",
    "EnableBatchedOperations": "true",
    "Status": "Active",
    "AutoDeleteOnIdle": "P10675199DT2H48M5.4775807S",
    "EnablePartitioning": "false",
}
SHORTEST_LOCK, LONGEST_LOCK = 5.0, 300.0


class Settings:
    """The elements of a QueueDescription by name. Raises ValueError for what the service would refuse."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self.values = {**_DEFAULTS, **given}
        self.lock_seconds = seconds_of(self.values["LockDuration"])
        self.max_delivery_count = int(self.values["MaxDeliveryCount"])
        if not SHORTEST_LOCK <= self.lock_seconds <= LONGEST_LOCK:
            raise ValueError(f"LockDuration must be from 5 seconds to 5 minutes, not {self.values['LockDuration']}")
        if not 1 <= self.max_delivery_count <= 2_147_483_647:
            raise ValueError(f"MaxDeliveryCount must be 1 or more, not {self.max_delivery_count}")
        if seconds_of(self.values["AutoDeleteOnIdle"]) < 300:
            raise ValueError("AutoDeleteOnIdle must be 5 minutes or more")

    @classmethod
    def read(cls, written: str) -> Settings:
        return cls(json.loads(written))

    def written(self) -> str:
        """As one line of text."""
        return json.dumps(self.values)


def seconds_of(duration: str) -> float:
    """An ISO 8601 duration in seconds. Raises ValueError when it is none."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise ValueError(f"{duration!r} is no ISO 8601 duration")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return days * 86_400 + hours * 3600 + minutes * 60 + seconds
