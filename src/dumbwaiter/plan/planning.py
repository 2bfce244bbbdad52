"""From what was asked for on the command line to what is simulated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dumbwaiter.blobs.profiles import ServiceProfile
from dumbwaiter.config import ScalingSettings, Settings
from dumbwaiter.demand import rules_of
from dumbwaiter.errors import ConfigError
from dumbwaiter.plan.actuation import KedaSettings, LocalSettings, Machines, Native, as_rendered
from dumbwaiter.plan.bounds import check_duration, check_requests, check_steps
from dumbwaiter.plan.comparing import Generated, Recorded, Result, Source, compare
from dumbwaiter.plan.generators import GENERATORS
from dumbwaiter.plan.loading import load
from dumbwaiter.plan.running import Tell
from dumbwaiter.plan.services import Curve, Heavy, Inputs, parse_curve, parse_heavy
from dumbwaiter.plan.simulation import Kills, Setting, World
from dumbwaiter.plan.traces import Trace, faster
from dumbwaiter.plan.trying import SIGNALS, Grid, drain_targets, native_of
from dumbwaiter.plan.trying import settings as settings_of
from dumbwaiter.policies.keda import cold_start_of
from dumbwaiter.policies.scaling import Rules
from dumbwaiter.spelling import did_you_mean

LOAD = 10.0
"""Seconds from starting a worker until it serves, where nobody says or has measured it."""
MOST = 20
"""The most workers, where nobody says."""
ALL = "all"
AS_SET = "as it is set"

Given = Mapping[str, Any]
Profiles = Callable[[Settings, str], ServiceProfile]


@dataclass(frozen=True)
class Plan:
    """What is to be simulated. *facts* say it as data, *title* in a few words; *left_out*, what is not, and why, or
    nothing.
    """

    source: Source
    settings: Sequence[Setting]
    world: World
    seeds: Sequence[int]
    late_after: float
    price: float
    title: str
    facts: dict[str, Any]
    left_out: str = ""

    @property
    def announcement(self) -> str:
        """What will take the time."""
        runs = f"{len(self.settings)} settings"
        if len(self.seeds) > 1:
            runs += f", {len(self.seeds)} seeds each, means ± 95 % confidence"
        return f"{self.title}: {runs}" + (f"; {self.left_out}" if self.left_out else "")

    def run(self, tell: Tell | None = None) -> list[Result]:
        """Simulate all of it; *tell* hears of each run that has ended."""
        return compare(
            self.source,
            self.settings,
            self.world,
            seeds=self.seeds,
            late_after=self.late_after,
            price=self.price,
            tell=tell,
        )


def planned(given: Given, settings: Settings, profile_of: Profiles) -> Plan:
    """What *given*, the options of the command by name, ask for. Raises ConfigError."""
    _check_requests(given)
    profile = profile_of(settings, given["model"]) if given["model"] else None
    inputs = _inputs(given, profile)
    source = _source(given, inputs)
    world = _world(given, settings, inputs, profile)
    base = _base(given, settings, profile, world)
    tried = _tried(given, settings, base, world.machines)
    is_random = isinstance(source, Generated) or world.error > 0.0 or world.kills.hourly > 0.0
    seeds = range(1, (given["seeds"] if is_random else 1) + 1)
    sample = source.trace(1)
    check_duration("what comes", sample.duration)
    check_steps(len(tried) * len(seeds), len(sample), max(_looks(one, sample.duration) for one in tried))
    if given["warm_up"] >= sample.duration:
        raise ConfigError(f"--warm-up {given['warm_up']:g} s leaves nothing of {sample.duration:g} s to count")
    hours = sample.duration / 3600
    title = f"{sample.name}, {len(sample):,} requests in {hours:.3g} h"
    facts = {
        "trace": sample.name,
        "requests": len(sample),
        "duration": sample.duration,
        "offered": _offered(sample, inputs.curve),
        "seeds": list(seeds),
        "late_after": given["late"],
        "goal": given["goal"],
        "price": given["price"],
        "cold_start": world.machines.cold_start,
        "transit": world.transit,
    }
    return Plan(source, tried, world, seeds, given["late"], given["price"], title, facts, _left_out(_grid(given), base))


def _can_be(setting: Setting) -> bool:
    """Whether it can be rendered: KEDA's own triggers take whole numbers of messages."""
    return not isinstance(setting.rules, Native) or float(setting.rules.messages_each).is_integer()


def _looks(setting: Setting, seconds: float) -> float:
    place = setting.place
    if isinstance(place, LocalSettings):
        return seconds / place.look_every
    return seconds / place.polling_interval + seconds / place.sync_every


def _offered(trace: Trace, curve: Curve) -> float:
    """Workers' worth of work, on average, in full batches."""
    return (trace.work + len(trace) * curve.fixed / curve.target) / trace.duration if trace.duration else 0.0


# --- the requests ---


def _check_requests(given: Given) -> None:
    name, path = given["generate"], given["trace"]
    known = ", ".join(sorted(GENERATORS))
    if name is None and path is None:
        raise ConfigError(f"there are no requests; name a TRACE, or --generate some ({known})")
    if name is not None and path is not None:
        raise ConfigError("both a TRACE and --generate say what requests come; leave one out")
    if name is not None and name not in GENERATORS:
        raise ConfigError(f"--generate {name} is not known{did_you_mean(name, GENERATORS)}; choose one of: {known}")
    if name is not None:
        asked = f"--rate {given['rate']:g} for a --duration of {given['duration']:g} s"
        check_requests(asked, given["rate"] * given["duration"])


def _source(given: Given, inputs: Inputs) -> Source:
    if given["trace"] is not None:
        return Recorded(_recorded(given["trace"], given, inputs))
    return Generated(given["generate"], inputs, given["rate"], given["duration"])


def _recorded(path: Path, given: Given, inputs: Inputs) -> Trace:
    of = given["of"]
    must_say = given["service"] is None and given["curve"] is None and given["model"] is None
    asked = replace(inputs, curve=replace(inputs.curve, each=math.nan)) if must_say else inputs
    traces = load(path, asked, as_one=of == ALL)
    of = None if of == ALL else of
    if of is not None and of not in traces:
        raise ConfigError(f"{path} has no model {of!r}{did_you_mean(of, traces)}; it has: {_few(traces)}")
    if of is None and len(traces) > 1:
        raise ConfigError(f"{path} has {len(traces)} models; say which with --of, or --of all: {_few(traces)}")
    trace = traces[of] if of is not None else next(iter(traces.values()))
    if untold := int(np.isnan(trace.each).sum()):
        raise ConfigError(
            f"how long does the model take? {path} has no service (seconds) for {untold:,} of {len(trace):,} requests;"
            " give --service, --curve or --model"
        )
    return faster(trace, given["faster"])


def _few(traces: Mapping[str, Trace]) -> str:
    names = list(traces)
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")


# --- the model ---


def _inputs(given: Given, profile: ServiceProfile | None) -> Inputs:
    service, curve = given["service"], given["curve"]
    if service is not None and curve is not None:
        raise ConfigError("--service and --curve both say how long the model takes; leave one out")
    if profile is not None and service is None and curve is None:
        mean = profile.seconds_each(profile.updated_at) or 0.0
        return Inputs(Curve(each=mean), varies=given["varies"], measured=profile.times)
    if curve is not None:
        shape = _parsed("--curve", lambda: parse_curve(curve, given["max_batch"]))
    elif service is not None:
        shape = Curve(each=service)
    elif given["trace"] is not None:
        shape = Curve()  # the trace has to say
    else:
        raise ConfigError("how long does the model take? give --service, --curve or --model")
    heavy = None if given["heavy"] is None else _heavy(given["heavy"], shape)
    return Inputs(shape, heavy=heavy, varies=given["varies"])


def _heavy(text: str, shape: Curve) -> Heavy:
    """What *text* says of heavy inputs, without what *shape* adds to each batch anyhow."""
    heavy: Heavy = _parsed("--heavy", lambda: parse_heavy(text))
    return replace(heavy, seconds=max(0.0, heavy.seconds - shape.fixed))


def _parsed(flag: str, parse: Callable[[], Any]) -> Any:
    try:
        return parse()
    except ValueError as error:
        raise ConfigError(f"{flag}: {error}") from error


# --- the machines, and what is tried ---


def _world(given: Given, settings: Settings, inputs: Inputs, profile: ServiceProfile | None) -> World:
    loads = given["load"]
    if loads is None:
        loads = profile.cold_start if profile is not None and profile.cold_start else LOAD
    kills = Kills(given["spot_kills"], tuple(given["spot_all_at"] or ()), given["notice"], settings.lock_duration)
    return World(
        inputs.curve,
        Machines(boot=given["boot"], load=loads),
        kills,
        error=given["error"],
        times=profile.times if profile is not None else None,
        warm_up=given["warm_up"],
        transit=given["transit"],
    )


def _tried(given: Given, settings: Settings, base: Rules, machines: Machines) -> list[Setting]:
    tried = [one for one in settings_of(_grid(given), base, _place(given, settings, base)) if _can_be(one)]
    if given["model"] in settings.models and _scaling(settings, given["model"]).is_on:
        tried.insert(0, _as_set(given, settings, machines))
    if not tried:
        raise ConfigError(
            "--signal native is a trigger of KEDA's; say --on keda too"
            if given["on"] == "local"
            else "--signal native takes whole numbers of messages for each worker; write --messages-each 1,2"
        )
    return tried


def _left_out(grid: Grid, base: Rules) -> str:
    """Which values of drain_target are tried as one, and why."""
    given = sorted(set(grid.drain_target))
    if "work" not in grid.signals or len(drain_targets(given, base)) == len(given):
        return ""
    same = ", ".join(f"{one:g} s" for one in given if one <= base.cold_start)
    return f"drain_target {same} do the same, as a worker takes {base.cold_start:g} s to come, and are tried as one"


def _base(given: Given, settings: Settings, profile: ServiceProfile | None, world: World) -> Rules:
    scaling = _scaling(settings, given["model"])
    rules = rules_of(scaling, profile)
    values = {
        name: given[name]
        for name in ("min_replicas", "max_replicas", "scale_in_after", "idle_after")
        if given[name] is not None
    }
    if scaling.max_replicas is None:
        values.setdefault("max_replicas", MOST)
    rules = replace(rules, cold_start=world.machines.cold_start, **values)
    if rules.min_replicas > rules.max_replicas:
        raise ConfigError(f"--min-replicas {rules.min_replicas} is more than --max-replicas {rules.max_replicas}")
    return rules


def _scaling(settings: Settings, model: str | None) -> ScalingSettings:
    known = None if model is None else settings.models.get(model)
    return settings.scaling if known is None else known.scaling


def _place(given: Given, settings: Settings, rules: Rules) -> LocalSettings | KedaSettings:
    """Where the grid is tried: as it would be deployed, but for what was said otherwise."""
    if given["on"] == "local":
        return LocalSettings(look_every=_scaling(settings, given["model"]).look_every)
    table = settings.kubernetes
    push = table.trigger != "metrics-api" if given["push"] is None else given["push"]
    place = as_rendered(rules, polling_interval=table.polling_interval, push=push)
    if given["cooldown"] is not None:
        place = replace(place, cooldown=given["cooldown"])
    usual = KedaSettings()
    return replace(place, up_percent=usual.up_percent, up_pods=usual.up_pods) if given["limits"] else place


def _as_set(given: Given, settings: Settings, machines: Machines) -> Setting:
    """What runs by the settings as they are, whatever else is tried. Workers measure how long they load."""
    scaling, table = _scaling(settings, given["model"]), settings.kubernetes
    is_local = given["on"] == "local"
    cold_start = cold_start_of(scaling.cold_start, boot=0.0 if is_local else table.boot, measured=machines.load)
    ours = replace(rules_of(scaling, None), cold_start=cold_start)
    if is_local:
        return Setting(AS_SET, ours, LocalSettings(look_every=scaling.look_every))
    rules = native_of(scaling.messages_each, ours) if table.trigger == "native" else ours
    push = table.trigger == "external-push"
    return Setting(AS_SET, rules, as_rendered(rules, polling_interval=table.polling_interval, push=push))


def _grid(given: Given) -> Grid:
    values: dict[str, Any] = {
        name: given[name]
        for name in ("drain_target", "spare", "messages_each", "age_target", "polling_interval", "stabilization")
        if given[name] is not None
    }
    if given["signals"] is not None:
        signals = tuple(name.strip() for name in given["signals"].split(","))
        for name in signals:
            if name not in SIGNALS:
                raise ConfigError(
                    f"--signal {name} is none{did_you_mean(name, SIGNALS)}; there are: {', '.join(SIGNALS)}"
                )
        values["signals"] = signals
    elif given["on"] == "keda":
        values["signals"] = SIGNALS
    return Grid(**values)
