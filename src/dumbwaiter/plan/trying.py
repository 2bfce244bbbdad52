"""Which settings are tried: every combination of the values that are given for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from dumbwaiter.plan.actuation import KedaSettings, LocalSettings, Native
from dumbwaiter.plan.simulation import Setting
from dumbwaiter.policies.scaling import Rules

SIGNALS = ("work", "messages", "age", "native")


@dataclass(frozen=True, slots=True)
class Grid:
    """Values to try, each as config.ScalingSettings and actuation.KedaSettings name them; none: as the place has it.
    *native* is a trigger of KEDA's own, with *messages_each*.
    """

    signals: Sequence[str] = ("work", "messages", "age")
    drain_target: Sequence[float] = (2.0, 5.0, 20.0)
    spare: Sequence[float] = (1.0, 3.0)
    messages_each: Sequence[float] = (1.0, 2.0, 5.0)
    age_target: Sequence[float] = (5.0,)
    polling_interval: Sequence[float] = ()
    stabilization: Sequence[float] = ()


def settings(grid: Grid, base: Rules, place: LocalSettings | KedaSettings) -> list[Setting]:
    """All of *grid* that differ in what they do, with the rest as *base* and *place* say. KEDA's own triggers only
    where KEDA is.
    """
    tried: list[Setting] = []
    for where in _places(grid, place):
        suffix = _suffix(grid, where)
        for signal in grid.signals:
            if signal != "native":
                tried += [Setting(f"{name}{suffix}", rules, where) for name, rules in _ours(grid, base, signal)]
            elif isinstance(where, KedaSettings):
                tried += [
                    Setting(f"KEDA's queue length, {each:g} each{suffix}", native_of(each, base), where)
                    for each in grid.messages_each
                ]
    return tried


def drain_targets(given: Sequence[float], base: Rules) -> tuple[float, ...]:
    """Those of *given* that differ in what they do: work is not drained sooner than a worker comes, so all that are no
    longer than a cold start are the same. Of several such the value of *base* stays if it is one, else the longest.
    """
    same = sorted({one for one in given if one <= base.cold_start})
    if len(same) < 2:
        return tuple(dict.fromkeys(given))
    kept = base.drain_target if base.drain_target <= base.cold_start else same[-1]
    return kept, *dict.fromkeys(one for one in given if one > base.cold_start)


def native_of(each: float, base: Rules) -> Native:
    """KEDA's own trigger for *each* messages a worker, with the rest as *base* has it."""
    return Native(
        each,
        max_replicas=base.max_replicas,
        min_replicas=base.min_replicas,
        scale_in_after=base.scale_in_after,
        idle_after=base.idle_after,
        cold_start=base.cold_start,
    )


def _ours(grid: Grid, base: Rules, signal: str) -> Iterator[tuple[str, Rules]]:
    if signal == "work":
        for drain, spare in product(drain_targets(grid.drain_target, base), grid.spare):
            name = f"work, drain {drain:g} s, spare {spare:g}"
            yield name, replace(base, signal="work", drain_target=drain, spare=spare)
    elif signal == "messages":
        for each in grid.messages_each:
            yield f"messages, {each:g} each", replace(base, signal="messages", messages_each=each)
    else:
        for age in grid.age_target:
            yield f"age, {age:g} s", replace(base, signal="age", age_target=age)


def _places(grid: Grid, place: LocalSettings | KedaSettings) -> list[LocalSettings | KedaSettings]:
    if isinstance(place, LocalSettings):
        return [place]
    return [
        replace(place, polling_interval=polling, stabilization=window)
        for polling, window in product(
            grid.polling_interval or (place.polling_interval,), grid.stabilization or (place.stabilization,)
        )
    ]


def _suffix(grid: Grid, place: LocalSettings | KedaSettings) -> str:
    """What tells this place from the others that are tried."""
    if isinstance(place, LocalSettings):
        return ""
    polling = f", polled {place.polling_interval:g} s" if len(grid.polling_interval) > 1 else ""
    window = f", window {place.stabilization:g} s" if len(grid.stabilization) > 1 else ""
    return polling + window
