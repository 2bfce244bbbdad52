"""Means over seeds, and how far they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_QUANTILES = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Of Student's t, 97.5 %, for 1 to 30 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A *mean*, and *half* the width of its 95 % confidence interval; None where there was one value only."""

    mean: float
    half: float | None

    @property
    def upper(self) -> float:
        """The upper end of the interval, or the mean where there is none."""
        return self.mean + (self.half or 0.0)


def mean_of(values: Sequence[float]) -> Mean:
    """The mean of independent *values*, with Student's interval. Raises ValueError where there are none."""
    if not values:
        raise ValueError("there is no mean of no values")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Mean(mean, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Mean(mean, student(len(values) - 1) * math.sqrt(variance / len(values)))


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t with *freedom* >= 1 degrees of freedom, to 0.3 % of itself."""
    if freedom <= len(_QUANTILES):
        return _QUANTILES[freedom - 1]
    normal = 1.959964
    return normal + (normal**3 + normal) / (4 * freedom)
