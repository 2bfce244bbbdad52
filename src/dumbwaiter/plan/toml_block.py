"""The settings to paste into dumbwaiter.toml for what was recommended."""

from __future__ import annotations

import math
from decimal import Decimal

from dumbwaiter.config.toml_text import key
from dumbwaiter.plan.actuation import KedaSettings, Native, as_rendered
from dumbwaiter.plan.simulation import Setting
from dumbwaiter.policies.scaling import Rules

_OF_SIGNAL = {"work": ("drain_target", "spare", "age_target"), "messages": ("messages_each",), "age": ("age_target",)}
_SECONDS = {"drain_target", "age_target", "scale_in_after", "idle_after", "cold_start", "look_every"}


def toml_of(setting: Setting, *, model: str | None = None, is_start_told: bool = True) -> str:
    """A ``[scaling]`` table, or that of *model*, and for KEDA what belongs into ``[kubernetes]``.

    *is_start_told*: somebody said how long a worker takes to come. Else it is what workers measure anyhow, and only a
    comment, or it would stay as it is when they measure something else.
    """
    rules, place = setting.rules, setting.place
    lines = ["[scaling]" if model is None else f"[models.{key(model)}.scaling]"]
    if isinstance(rules, Native):
        lines.append('signal = "messages"')
        values: dict[str, float] = {"messages_each": rules.messages_each}
    else:
        lines.append(f'signal = "{rules.signal}"')
        values = {name: getattr(rules, name) for name in _OF_SIGNAL[rules.signal]}
    values |= {name: getattr(rules, name) for name in ("scale_in_after", "idle_after")}
    values = {"min_replicas": rules.min_replicas, "max_replicas": rules.max_replicas, **values}
    if not isinstance(place, KedaSettings):
        values["look_every"] = place.look_every
    lines += [f"{name} = {_shown(name, value)}" for name, value in values.items()]
    if rules.cold_start:
        lines.append(_cold_start(rules.cold_start, is_told=is_start_told))
    if isinstance(place, KedaSettings):
        lines += _kubernetes(rules, place)
    return "\n".join(lines)


def _cold_start(seconds: float, *, is_told: bool) -> str:
    """The line for it, in tenths of a second, rounded up."""
    tenths = Decimal(math.ceil(Decimal(repr(seconds)) * 10)) / 10 if math.isfinite(seconds) else seconds
    line = f"cold_start = {_shown('cold_start', float(tenths))}  # as planned with; without this line it is measured"
    return line if is_told else f"# {line}"


def _kubernetes(rules: Rules | Native, place: KedaSettings) -> list[str]:
    """Who tells KEDA, how often it asks, and what was planned with that ``deploy kubernetes`` makes otherwise."""
    ours = "external-push" if place.push else "metrics-api"
    trigger = "native" if isinstance(rules, Native) else ours
    lines = ["", "[kubernetes]", f'trigger = "{trigger}"', f'polling_interval = "{_number(place.polling_interval)}s"']
    made = as_rendered(rules, polling_interval=place.polling_interval, push=place.push)
    others = [
        f"{name} {_number(planned)}, rendered {_number(rendered)}"
        for name, planned, rendered in (
            ("pollingInterval", place.polling_interval, made.polling_interval),
            ("cooldownPeriod", place.cooldown, made.cooldown),
            ("stabilizationWindowSeconds of scaleDown", place.stabilization, made.stabilization),
        )
        if planned != rendered
    ]
    if (place.up_percent, place.up_pods) != (None, None):
        others.append("limits of scaleUp, rendered none")
    if others:
        lines += ["# Planned otherwise than dumbwaiter deploy kubernetes renders it by these settings:"]
        lines += [f"#   {other}" for other in others]
    return lines


def _shown(name: str, value: float) -> str:
    return f'"{_number(value)}s"' if name in _SECONDS and math.isfinite(value) else _number(value)


def _number(value: float) -> str:
    """All digits of *value* and no exponent, which durations and whole numbers cannot have."""
    if not math.isfinite(value):
        return str(value)
    text = f"{Decimal(repr(value)):f}"
    return text.removesuffix(".0")
