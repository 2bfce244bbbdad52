"""``dumbwaiter plan``."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dumbwaiter.cli.options import Command, current_settings, json_option, settings_options
from dumbwaiter.cli.output import print_json, print_table
from dumbwaiter.config import parse_duration
from dumbwaiter.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from dumbwaiter.blobs.profiles import ServiceProfile
    from dumbwaiter.config import Settings
    from dumbwaiter.plan.planning import Plan

F = TypeVar("F", bound=Callable[..., Any])


def _time(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from error


def _numbers(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """``2,5,20``, each as a number or a duration above 0."""
    if value is None:
        return None
    try:
        numbers = tuple(parse_duration(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0.0 <= number < math.inf for number in numbers):
        raise click.BadParameter(f"{value!r} is no list of numbers; write them as 2,5,20", ctx, parameter)
    return numbers


def _share(ctx: click.Context, parameter: click.Parameter, value: str) -> float:
    try:
        number = float(value.removesuffix("%")) / (100.0 if value.endswith("%") else 1.0)
    except ValueError:
        number = math.nan
    if not 0.0 <= number <= 1.0:
        raise click.BadParameter(f"{value!r} is no share; write it as 1% or 0.01", ctx, parameter)
    return number


def _time_option(name: str, text: str, default: str | None = None) -> Callable[[F], F]:
    return click.option(name, callback=_time, metavar="TIME", default=default, help=text, show_default=bool(default))


def _list_option(name: str, text: str) -> Callable[[F], F]:
    return click.option(name, callback=_numbers, metavar="LIST", help=text)


def _together(*options: Callable[[F], F]) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_requests = _together(
    click.option("--generate", metavar="NAME", help="Make requests up: azure, bursts, diurnal, flash, gamma, jobs, …"),
    click.option(
        "--rate",
        type=click.FloatRange(min=0, min_open=True),
        default=5.0,
        show_default=True,
        metavar="N",
        help="With --generate: requests a second, on average.",
    ),
    _time_option("--duration", "With --generate: for how long.", "4h"),
    click.option(
        "--faster",
        type=click.FloatRange(min=0, min_open=True),
        default=1.0,
        metavar="N",
        help="Replay TRACE so many times as fast.",
    ),
    click.option("--of", "of", metavar="MODEL", help="Of a TRACE with several models this one; all: as if one."),
    click.option(
        "--seeds",
        type=click.IntRange(min=1),
        default=10,
        show_default=True,
        metavar="N",
        help="Runs of each setting, each with another seed.",
    ),
)
_model = _together(
    click.option("--model", metavar="NAME", help="Take what was measured of this model, and its settings."),
    click.option(
        "--service",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="What an input takes a worker.",
    ),
    click.option("--curve", metavar="A+Cb", help="Seconds of a batch of b inputs, such as 0.02+0.004b."),
    click.option(
        "--max-batch",
        type=click.IntRange(min=1),
        default=32,
        show_default=True,
        metavar="N",
        help="With --curve: the largest batch.",
    ),
    click.option(
        "--heavy",
        metavar="S:SHARE[:LATER]",
        help="Inputs that take S seconds: SHARE of all, or LATER in the second half; 3:0.02:0.25.",
    ),
    click.option(
        "--varies",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="CV",
        help="How much inputs vary: the coefficient of variation.",
    ),
    click.option(
        "--error",
        callback=_share,
        default="0",
        metavar="SHARE",
        help="What is expected of inputs is wrong by up to so much: 30%.",
    ),
)
_machines = _together(
    _time_option("--boot", "Until a machine for a worker is there.", "0s"),
    _time_option("--load", "From there until it can serve: its process and model (measured, with --model; else 10s)."),
    click.option(
        "--price",
        type=click.FloatRange(min=0),
        default=1.0,
        show_default=True,
        metavar="N",
        help="What a worker costs an hour.",
    ),
    click.option(
        "--spot-kills",
        type=click.FloatRange(min=0),
        default=0.0,
        metavar="N",
        help="How often an hour a worker is taken away.",
    ),
    _list_option("--spot-all-at", "Moments at which all are taken away: 1h,2h."),
    _time_option("--notice", "How long before it is taken away a worker is told.", "30s"),
)
_scaling = _together(
    click.option(
        "--on",
        "on",
        type=click.Choice(["local", "keda"]),
        default="local",
        show_default=True,
        help="Who starts and stops workers.",
    ),
    click.option(
        "--signal", "signals", metavar="LIST", help="What to follow: work, messages, age; on keda also native."
    ),
    click.option("--min-replicas", type=click.IntRange(min=0), metavar="N", help="Workers at least [0]."),
    click.option("--max-replicas", type=click.IntRange(min=1), metavar="N", help="Workers at most [20]."),
    _list_option("--drain-target", "Values of drain_target to try."),
    _list_option("--spare", "Values of spare to try."),
    _list_option("--messages-each", "Values of messages_each to try."),
    _list_option("--age-target", "Values of age_target to try."),
    _time_option("--scale-in-after", "Too many for so long: fewer."),
    _time_option("--idle-after", "Nothing to do for so long: none."),
    _list_option("--polling-interval", "On keda: values of pollingInterval to try."),
    _list_option("--stabilization", "On keda: values of the HPA's stabilizationWindowSeconds to try."),
    _time_option("--cooldown", "On keda: cooldownPeriod.", "300s"),
    click.option("--push", is_flag=True, help="On keda: our external scaler pushes the first message."),
    click.option("--no-limits", is_flag=True, help="On keda: the HPA adds as many pods at once as it likes."),
)
_report = _together(
    _time_option("--late", "An answer is late after so long.", "30s"),
    click.option(
        "--goal",
        callback=_share,
        default="1%",
        show_default=True,
        metavar="SHARE",
        help="The share of answers that may be late.",
    ),
    _time_option("--warm-up", "Do not count what happens before.", "0s"),
    click.option(
        "--output",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Draw cost against lateness: a .svg, .png or .pdf.",
    ),
)


@click.command(cls=Command)
@click.argument("trace", required=False, metavar="[TRACE]", type=click.Path(path_type=Path, dir_okay=False))
@_requests
@_model
@_machines
@_scaling
@_report
@json_option
@settings_options
def plan(**given: Any) -> None:
    """Say beforehand what scaling will cost and how late answers will be, and which settings to take.

    Simulates a queue and its workers, with the decisions of the running system, for the requests of TRACE or for such
    as --generate makes up: every combination of the settings, on the same requests. TRACE is a CSV with a line for each
    request and the columns arrival and, if known, model, service (seconds) and size (bytes); or JSON lines of that; or
    a trace of Azure Functions (app, func, end_timestamp, duration). Marked with * is what nothing else beats at once in
    cost and lateness, with > what is recommended: the cheapest that meets the goal.

    Examples:
      dumbwaiter plan --generate bursts --rate 15 --service 0.15 --boot 2m
      dumbwaiter plan requests.csv --curve 0.02+0.004b --max-batch 16 --on keda --signal work,native
      dumbwaiter plan --generate flash --service 0.15 --heavy 3:0.02 --error 30% --output plan.svg
      dumbwaiter plan requests.jsonl --model infer --price 0.35 --late 5s --goal 0.1%

    """
    _need_numpy()
    from dumbwaiter.plan import picture, planning, report, toml_block  # noqa: PLC0415 - they need it
    from dumbwaiter.plan.comparing import recommended  # noqa: PLC0415

    if given["output"] is not None:
        picture.check(given["output"])
    ready: Plan = planning.planned(given, current_settings(), _profile)
    if not given["as_json"]:
        click.echo(ready.announcement, err=True)
    results = ready.run()
    chosen, is_good = recommended(results, goal=given["goal"])
    if given["output"] is not None:
        picture.draw(
            given["output"], results, chosen=chosen, late_after=given["late"], goal=given["goal"], title=ready.title
        )
    if given["as_json"]:
        print_json(report.data(results, chosen, is_good=is_good, model=given["model"], facts=ready.facts))
        return
    print_table(report.COLUMNS, report.rows(results, chosen), right=report.RIGHT)
    click.echo(f"\n{_verdict(chosen.setting.name, is_good, given)}\n")
    click.echo(toml_block.toml_of(chosen.setting, model=given["model"]))


def _need_numpy() -> None:
    try:
        import numpy as np  # noqa: F401, PLC0415 - an extra, and heavy
    except ImportError as error:
        raise MissingExtraError("numpy", "plan", wanted="dumbwaiter plan") from error


def _verdict(name: str, is_good: bool, given: dict[str, Any]) -> str:
    goal = f"at most {given['goal'] * 100:g} % of the answers later than {given['late']:g} s"
    if is_good:
        return f"The cheapest with {goal} is: {name}. For dumbwaiter.toml:"
    return f"None has {goal} for certain; the least late is: {name}. Try other values, or a shorter --boot or --load."


def _profile(settings: Settings, model: str) -> ServiceProfile:
    """What was measured of *model*. Raises ConfigError where nothing was."""
    from dumbwaiter.blobs import open_store  # noqa: PLC0415
    from dumbwaiter.blobs.profiles import load_profile  # noqa: PLC0415

    profile = asyncio.run(load_profile(open_store(settings.blobs), model))
    if profile is None or not profile.times.is_known:
        raise ConfigError(
            f"nothing was measured of model {model!r} in {settings.blobs}; let a worker of it answer a few requests"
            " there, or leave --model out and give --service or --curve"
        )
    return profile
