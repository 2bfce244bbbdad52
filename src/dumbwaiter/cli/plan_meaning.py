"""Which options of ``dumbwaiter plan`` mean nothing beside the others: they are refused, rather than passed over."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import click

from dumbwaiter.errors import ConfigError

_NAMES = {"of": "--of", "signals": "--signal"}


def named(ctx: click.Context) -> set[str]:
    """The options that were given, by name, and not left as they are by default."""
    left = {click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP}
    return {name for name in ctx.params if ctx.get_parameter_source(name) not in left}


def check_meaning(given: Mapping[str, Any], asked: Set[str]) -> None:
    """Raises ConfigError for the first of those *asked* for that changes nothing, *given* all the others."""
    for options, means_something, reason in _conditions(given):
        for name in options:
            if name in asked and not means_something:
                raise ConfigError(f"{_flag(name, given)} means nothing {reason}")


def _conditions(given: Mapping[str, Any]) -> list[tuple[tuple[str, ...], bool, str]]:
    """Options, whether they mean something, and if not: why, and what to do."""
    signals = {one.strip() for one in (given["signals"] or "work,messages,age,native").split(",")}
    has_trace, knows_service = given["trace"] is not None, given["service"] is not None or given["curve"] is not None
    is_random = not has_trace or given["error"] > 0.0 or given["spot_kills"] > 0.0
    leave = "or leave it out"
    keda = ("push", "limits", "cooldown", "polling_interval", "stabilization")
    return [
        (keda, given["on"] == "keda", f"without KEDA; say --on keda too, {leave}"),
        (("rate", "duration"), not has_trace, f"for a TRACE, which has its own; say --generate in its place, {leave}"),
        (("faster", "of"), has_trace, f"for requests that are made up; name a TRACE, {leave}"),
        (("seeds",), is_random, f"for a TRACE without chance in it; say --error or --spot-kills too, {leave}"),
        (("max_batch",), given["curve"] is not None, f"for one input at a time; say --curve too, {leave}"),
        (("heavy",), knows_service, "where nobody says what other inputs take; say --service or --curve too"),
        (
            ("notice",),
            given["spot_kills"] > 0.0 or bool(given["spot_all_at"]),
            f"where no worker is taken away; say --spot-kills or --spot-all-at too, {leave}",
        ),
        (("drain_target", "spare"), "work" in signals, f"without work in --signal; add it, {leave}"),
        (("messages_each",), bool({"messages", "native"} & signals), f"without messages in --signal; add it, {leave}"),
        (("age_target",), "age" in signals, f"without age in --signal; add it, {leave}"),
    ]


def _flag(name: str, given: Mapping[str, Any]) -> str:
    text = _NAMES.get(name, f"--{name.replace('_', '-')}")
    return text if given[name] is not False else f"--no-{text.removeprefix('--')}"
