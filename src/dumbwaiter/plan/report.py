"""Results as rows of a table and as data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dumbwaiter.plan.actuation import KedaSettings, Native
from dumbwaiter.plan.comparing import Result, pareto
from dumbwaiter.plan.statistics import Mean

COLUMNS = ("", "settings", "worker-hours", "cost", "late", "p50", "p95", "p99", "most", "started")
RIGHT = COLUMNS[2:]
_MOST_DECIMALS = 9


def rows(results: Sequence[Result], chosen: Result | None) -> list[tuple[str, ...]]:
    """A row for each of *results*, the cheapest first; ``*`` marks the Pareto front and ``>`` what is recommended: the
    *chosen* one, or None where nothing meets the goal.
    """
    front = {id(one) for one in pareto(results)}
    table: list[tuple[str, ...]] = []
    for one in sorted(results, key=lambda one: (one.cost.mean, one.late.mean)):
        mark = ("*" if id(one) in front else "") + (">" if one is chosen else "")
        table.append(
            (
                mark,
                one.setting.name,
                _shown(one.hours, _decimals(one.hours.mean)),
                _shown(one.cost, _decimals(one.cost.mean)),
                _percent(one.late),
                *(_seconds(mean.mean) for mean in (one.p50, one.p95, one.p99)),
                f"{one.most.mean:.0f}",
                f"{one.ordered.mean:.0f}",
            )
        )
    return table


def data(results: Sequence[Result], chosen: Result, block: str | None, *, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything as plain data; *facts* say what was simulated. What never ended is null, and so is the *block* to
    paste where the *chosen* one misses the goal.
    """
    front = [one.setting.name for one in pareto(results)]
    return {
        **facts,
        "settings": [_result(one) for one in results],
        "pareto": front,
        "recommended": {
            "name": chosen.setting.name,
            "meets_goal": block is not None,
            "toml": block,
        },
    }


def _result(one: Result) -> dict[str, Any]:
    rules, place = one.setting.rules, one.setting.place
    names = ("cost", "hours", "p50", "p95", "p99", "late", "most", "ordered")
    means: dict[str, Mean] = {name: getattr(one, name) for name in names}
    return {
        "name": one.setting.name,
        "signal": "native" if isinstance(rules, Native) else rules.signal,
        "on": "keda" if isinstance(place, KedaSettings) else "local",
        "rules": asdict(rules),
        "place": asdict(place),
        **{name: {"mean": _finite(mean.mean), "half": _finite(mean.half)} for name, mean in means.items()},
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def three_digits(value: float) -> str:
    """Money or hours, with three digits that count, or all of those before the point."""
    return f"{value:,.{_decimals(value)}f}"


def _decimals(value: float) -> int:
    if not value or not math.isfinite(value):
        return 2
    exponent = int(f"{value:.2e}".partition("e")[2])  # of the rounded one: 9.999 is 10.0
    return min(max(0, 2 - exponent), _MOST_DECIMALS)


def _shown(mean: Mean, decimals: int) -> str:
    text = f"{mean.mean:,.{decimals}f}"
    return text if mean.half is None else f"{text} ± {mean.half:,.{decimals}f}"


def _percent(mean: Mean) -> str:
    return _shown(Mean(mean.mean * 100, None if mean.half is None else mean.half * 100), 2) + " %"


def _seconds(seconds: float) -> str:
    return "never" if math.isinf(seconds) else f"{seconds:.3g} s"
