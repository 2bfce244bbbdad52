"""``dumbwaiter plan``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dumbwaiter.cli.options import Command, current_settings, json_option, settings_options
from dumbwaiter.cli.output import print_json, print_table
from dumbwaiter.cli.plan_doubts import warnings_of
from dumbwaiter.cli.plan_meaning import check_meaning, named
from dumbwaiter.cli.plan_numbers import (
    count_option,
    in_seconds,
    list_option,
    number_option,
    share,
    time_option,
    together,
)
from dumbwaiter.cli.plan_progress import progress
from dumbwaiter.config.quantities import MOST_REPLICAS
from dumbwaiter.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from dumbwaiter.blobs.profiles import ServiceProfile
    from dumbwaiter.config import Settings
    from dumbwaiter.plan.comparing import Result
    from dumbwaiter.plan.planning import Plan

_MADE_UP = "azure, bursts, diurnal, flash, gamma, jobs, mmpp2, mmpp3 or poisson"
"""The names of plan.generators, said here so that --help needs no numpy."""

_requests = together(
    click.option("--generate", metavar="NAME", help=f"Make requests up: {_MADE_UP}."),
    number_option(
        "--rate", "With --generate: requests a second, on average.", least=1e-6, most=1_000_000.0, default=5.0
    ),
    time_option("--duration", "With --generate: for how long.", "2h", least="1s", most="100d"),
    number_option("--faster", "Replay TRACE so many times as fast.", least=0.001, most=1000.0, default=1.0),
    click.option("--of", "of", metavar="MODEL", help="Of a TRACE with several models this one; all: as if one."),
    count_option("--seeds", "Runs of each setting, each with another seed.", least=1, most=1000, default=10),
)
_model = together(
    click.option("--model", metavar="NAME", help="Take what was measured of this model, and its settings."),
    time_option("--service", "What an input takes a worker: 150ms, or 0.15 in seconds.", least="0.001ms"),
    click.option(
        "--curve",
        callback=in_seconds,
        metavar="A+Cb",
        help="What a batch of b inputs takes: 20ms+4ms*b, or 0.02+0.004b in seconds.",
    ),
    count_option("--max-batch", "With --curve: the largest batch.", least=1, most=65_536, default=32),
    click.option(
        "--heavy",
        callback=in_seconds,
        metavar="S:SHARE[:LATER]",
        help="Inputs that take S seconds: SHARE of all, or LATER in the second half; 3:0.02:0.25.",
    ),
    number_option(
        "--varies",
        "How much inputs vary: the coefficient of variation.",
        least=0.0,
        most=100.0,
        default=0.0,
        metavar="CV",
    ),
    click.option(
        "--error",
        callback=share,
        default="0",
        metavar="SHARE",
        help="What is expected of inputs is wrong by up to so much: 30%.",
    ),
)
_machines = together(
    time_option("--boot", "Until a machine for a worker is there.", "0s"),
    time_option("--load", "From there until it can serve: its process and model (measured, with --model; else 10s)."),
    time_option("--transit", "What broker and network add to each answer.", "0s"),
    number_option("--price", "What a worker costs an hour.", least=0.0, most=1e9, default=1.0),
    number_option("--spot-kills", "How often an hour a worker is taken away.", least=0.0, most=360.0, default=0.0),
    list_option("--spot-all-at", "Moments at which all are taken away: 1h,2h.", least="0s", most="100d"),
    time_option("--notice", "How long before it is taken away a worker is told.", "30s"),
)
_scaling = together(
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
    count_option("--min-replicas", "Workers at least [0].", least=0, most=MOST_REPLICAS),
    count_option("--max-replicas", "Workers at most [20].", least=1, most=MOST_REPLICAS),
    list_option("--drain-target", "Values of drain_target to try.", least="1ms", most="1d"),
    list_option("--spare", "Values of spare to try.", least="0", most="1000"),
    list_option("--messages-each", "Values of messages_each to try.", least="0.001", most="1000000"),
    list_option("--age-target", "Values of age_target to try.", least="1ms", most="1d"),
    time_option("--scale-in-after", "Too many for so long: fewer."),
    time_option("--idle-after", "Nothing to do for so long: none."),
    list_option(
        "--polling-interval", "On keda: values of pollingInterval to try [as rendered].", least="1s", most="1d"
    ),
    list_option(
        "--stabilization",
        "On keda: values of the HPA's stabilizationWindowSeconds to try [as rendered].",
        least="0s",
        most="1h",
    ),
    time_option("--cooldown", "On keda: cooldownPeriod [as deploy kubernetes renders it]."),
    click.option(
        "--push/--no-push",
        default=None,
        help="On keda: by external-push, or by metrics-api [as kubernetes.trigger says].",
    ),
    click.option(
        "--limits/--no-limits",
        default=False,
        help="On keda: the HPA adds no more than 4 pods, or as many again, at a time.",
    ),
)
_report = together(
    time_option("--late", "An answer is late after so long.", "30s"),
    click.option(
        "--goal",
        callback=share,
        default="1%",
        show_default=True,
        metavar="SHARE",
        help="The share of answers that may be late.",
    ),
    time_option("--warm-up", "Do not count what happens before.", "0s", most="100d"),
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
    request and the columns arrival and, if known, model, service (seconds) and size (bytes); or JSON lines of that, as
    in the gateway's log; or a trace of Azure Functions (app, func, end_timestamp, duration). Marked with * is what
    nothing else beats at once in cost and lateness, with > what is recommended: the cheapest that is certain to meet
    the goal.

    The first example takes about a minute on two cores. It grows with --rate, --duration, --seeds and how many values
    are tried.

    Examples:
      dumbwaiter plan --generate bursts --rate 15 --service 0.15 --boot 2m --goal 5%
      dumbwaiter plan requests.csv --curve 0.02+0.004b --max-batch 16 --on keda --signal work,native
      dumbwaiter plan --generate flash --service 0.15 --heavy 3:0.02 --error 30% --output plan.svg
      dumbwaiter plan requests.jsonl --model infer --price 0.35 --late 5s --goal 0.1%

    """
    _need_numpy()
    asked, settings = named(click.get_current_context()), current_settings()
    check_meaning(given, asked)
    from dumbwaiter.plan import advice, picture, planning  # noqa: PLC0415 - they need it

    if given["output"] is not None:
        picture.check(given["output"])
    with warnings_of("dumbwaiter.plan") as doubts:
        ready: Plan = planning.planned(given, settings, _profile)
    doubts += advice.warnings(ready.source, ready.facts["requests"], len(ready.seeds))
    for line in [*([] if given["as_json"] else [ready.announcement]), *(f"warning: {one}" for one in doubts)]:
        click.echo(line, err=True)
    with progress() as tell:
        results = ready.run(tell)
    _tell(ready, results, given, doubts, lambda row: _is_start_told(row, given, asked, settings))


def _tell(
    ready: Plan,
    results: Sequence[Result],
    given: Mapping[str, Any],
    doubts: Sequence[str],
    is_start_told: Callable[[str], bool],
) -> None:
    from dumbwaiter.plan import advice, picture, report, toml_block  # noqa: PLC0415 - they need numpy
    from dumbwaiter.plan.comparing import recommended  # noqa: PLC0415

    late_after, goal, model = given["late"], given["goal"], given["model"]
    chosen, is_good = recommended(results, goal=goal)
    if given["output"] is not None:
        picture.draw(given["output"], results, chosen=chosen, late_after=late_after, goal=goal, title=ready.title)
    said = advice.verdict(results, chosen, advice.Wish(goal, late_after), ready.source, ready.world, is_good=is_good)
    block = toml_block.toml_of(chosen.setting, model=model, is_start_told=is_start_told(chosen.setting.name))
    if given["as_json"]:
        facts = {**ready.facts, "warnings": doubts, "verdict": said}
        print_json(report.data(results, chosen, block if is_good else None, facts=facts))
        return
    print_table(report.COLUMNS, report.rows(results, chosen if is_good else None), right=report.RIGHT)
    click.echo(f"\n{said}")
    # What misses the goal is not there to be pasted.
    if is_good:
        click.echo(f"{advice.heading(model)}\n\n{block}")


def _is_start_told(row: str, given: Mapping[str, Any], asked: Set[str], settings: Settings) -> bool:
    """Whether *row* was planned with a time to start that somebody said. Else it is what is measured where it runs, for
    all that is known here.
    """
    from dumbwaiter.plan.planning import AS_SET  # noqa: PLC0415 - it needs numpy

    if row == AS_SET:
        return settings.models[given["model"]].scaling.cold_start is not None
    boot_there = 0.0 if given["on"] == "local" else settings.kubernetes.boot
    return "load" in asked or given["boot"] != boot_there


def _need_numpy() -> None:
    try:
        import numpy as np  # noqa: F401, PLC0415 - an extra, and heavy
    except ImportError as error:
        raise MissingExtraError("numpy", "plan", wanted="dumbwaiter plan") from error


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
