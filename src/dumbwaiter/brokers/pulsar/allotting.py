"""For how many messages to ask which lane. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection

from dumbwaiter.policies.lanes import HIGH, LANES, LOW, NORMAL

_WEIGHTS = {HIGH: 5, NORMAL: 2, LOW: 1}
"""As policies/lanes serves them while all are full."""


def shares(wanted: int, warm: Collection[int], *, at_once: int) -> list[int]:
    """By lane, when receivers want so many: what a lane gives too much would have to be put back.

    Of the lanes that have messages, as far as one knows (*warm*), each is asked for its part, and for no more than
    *at_once*; the others for one, which tells when they have some.
    """
    if wanted <= 0:
        return [0] * LANES
    whole = sum(_WEIGHTS[lane] for lane in warm)
    return [min(at_once, math.ceil(wanted * _WEIGHTS[lane] / whole)) if lane in warm else 1 for lane in range(LANES)]
