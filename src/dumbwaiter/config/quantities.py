"""The types of numbers that settings are. Each ends far beyond what anybody means: a slip of the pen is told where it
stands, and whoever is handed the number can count so far.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

DAY = 86_400.0
LONGEST = 365 * DAY
"""Seconds of a duration."""
LONGEST_KEPT = 36_500 * DAY
"""Seconds for which something is kept."""
LARGEST = 2**50
"""Bytes that anything of a pod has."""
MOST_REPLICAS = 10_000

_DURATION = {"unit": "duration"}
_SIZE = {"unit": "size"}
Seconds = Annotated[float, msgspec.Meta(ge=0, le=LONGEST, extra=_DURATION)]
Span = Annotated[float, msgspec.Meta(gt=0, le=LONGEST, extra=_DURATION)]
SecondsKept = Annotated[float, msgspec.Meta(ge=0, le=LONGEST_KEPT, extra=_DURATION)]
MaybeSeconds = Annotated[Seconds | None, msgspec.Meta(extra=_DURATION)]
MaybeSpan = Annotated[Span | None, msgspec.Meta(extra=_DURATION)]
Nbytes = Annotated[int, msgspec.Meta(ge=0, extra=_SIZE)]
MaybeNbytes = Annotated[int | None, msgspec.Meta(extra=_SIZE)]
NbytesOfPod = Annotated[int, msgspec.Meta(gt=0, le=LARGEST, extra=_SIZE)]
Count = Annotated[int, msgspec.Meta(ge=1)]
CountInPod = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Replicas = Annotated[int, msgspec.Meta(ge=0, le=MOST_REPLICAS)]
SomeReplicas = Annotated[int, msgspec.Meta(ge=1, le=MOST_REPLICAS)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
