"""The simulator against `dumbwaiter autoscale` over a real queue: real workers of a model that sleeps.

What a worker takes to come and to go is measured in the run itself, and so is what broker and processes add to the
model's own time: from the model to the caller there, and from the caller to the model in requests that come alone,
before it. All else the simulator has to know. A machine that is busy with other things makes the real system later than
it is: then a trial says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest

from dumbwaiter.answers import failure_of, timings_of
from dumbwaiter.autoscale.following import GLANCE_EVERY
from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.profiles import load_profile
from dumbwaiter.brokers import open_broker
from dumbwaiter.config import load_settings
from dumbwaiter.demand import rules_of
from dumbwaiter.message import Message
from dumbwaiter.plan.actuation import LocalSettings, Machines
from dumbwaiter.plan.services import Curve
from dumbwaiter.plan.simulation import Setting, World, simulate
from dumbwaiter.plan.traces import Floats, Trace
from dumbwaiter.testing import eventually
from processes import environment

pytestmark = [pytest.mark.trial, pytest.mark.anyio, pytest.mark.timeout(600)]

SLEEPER = """
import time

class Sleeper:
    def __call__(self, text: str) -> str:
        time.sleep(float(text))
        return text
"""
SETTINGS = """
[scaling]
max_replicas = 8
scale_in_after = "8s"
idle_after = "6s"
look_every = "1s"
cold_start = "3s"

[models.sleeper]
target = "sleeper:Sleeper"
"""
LENGTH = 45.0
SILENCE = 6.0
"""Seconds in which `autoscale` starts, and looks at a pool without requests."""
AFTERWARDS = 60.0
"""Long enough for all workers to leave."""
FIRST = 30
"""Inputs that the model has answered before."""
STARTS = 4
"""Each trace comes so often, each time to an autoscaler that has just been started. One start is a throw of dice: where
it looks 0.2 s later, its p99 may be a tenth higher or lower.
"""
PHASES = np.linspace(0.0, GLANCE_EVERY, 8, endpoint=False)
"""Nobody can know when `autoscale` glances at an empty queue: so many seconds later or sooner, all are simulated."""


def steady(rng):
    return np.sort(rng.uniform(0.0, LENGTH, 450)), np.full(450, 0.25)


def mixed(rng):
    arrivals = np.sort(rng.uniform(0.0, LENGTH, 360))
    return arrivals, np.where(rng.random(360) < 0.1, 1.5, 0.15)


def waves(rng):
    arrivals = np.concatenate([start + np.sort(rng.uniform(0.0, 20.0, 250)) for start in (0.0, 38.0)])
    return arrivals, np.full(len(arrivals), 0.4)


def jobs(rng):
    arrivals = np.concatenate([np.full(240, start) + np.arange(240) * 0.005 for start in (0.0, 40.0)])
    return arrivals, np.full(len(arrivals), 0.5)


def growing(rng):
    arrivals = np.sort(LENGTH * np.sqrt(rng.uniform(0.0, 1.0, 405)))
    return arrivals, np.full(405, 0.3)


@dataclass
class Autoscaling:
    """`dumbwaiter autoscale` and the lives of its workers, by the moments at which it told of them."""

    process: subprocess.Popen
    lives: dict[str, list[float]] = field(default_factory=dict)
    ended: list[list[float]] = field(default_factory=list)
    ordered: deque[float] = field(default_factory=deque)
    """When those were ordered that have not been started yet: each is when its turn comes."""
    leaving: list[float] = field(default_factory=list)
    """Seconds from retiring a worker to its end, of those retired while all was idle."""
    died: list[dict[str, object]] = field(default_factory=list)
    idle_at: float = 0.0

    def read(self):
        for line in self.process.stdout:
            event, now = json.loads(line), time.monotonic()
            name = event.get("name")
            if event["event"] == "started":
                self.lives[name] = [self.ordered.popleft() if self.ordered else now]
            elif event["event"] == "state" and event["state"] == "ready" and len(self.lives.get(name, ())) == 1:
                self.lives[name].append(now)
            elif event["event"] == "scaled":
                self.ordered.extend([now] * (event["to"] - event["from"]))
                self.idle_at = now if event["why"] == "idle" else 0.0
            elif event["event"] == "died":
                self.died.append(event)
                self.lives.pop(name, None)
            elif event["event"] == "left" and name in self.lives:
                self.ended.append([*self.lives.pop(name), now])
                if self.idle_at:
                    self.leaving.append(now - self.idle_at)
            elif event["event"] == "left":  # before its turn
                self.ordered.pop()


def is_ready(life):
    return len(life) > 1


def is_loaded(life):
    return len(life) == 3


class Measured(Machines):
    """Each worker takes as long to come as the real one of its number did, and any further one as long as the last."""

    def __init__(self, loads, *, leave):
        super().__init__(leave=leave)
        object.__setattr__(self, "_loads", list(loads))

    @property
    def cold_start(self):
        return self._loads.pop(0) if len(self._loads) > 1 else self._loads[0]


@contextlib.contextmanager
def autoscaling(project):
    with (project / "autoscale.log").open("wb") as log:
        command = [sys.executable, "-m", "dumbwaiter", "autoscale", "--json"]
        process = subprocess.Popen(command, cwd=project, env=environment(), stdout=subprocess.PIPE, stderr=log)
        scaling = Autoscaling(process)
        reader = threading.Thread(target=scaling.read, daemon=True)
        reader.start()
        try:
            yield scaling
        finally:
            process.terminate()
            process.wait(timeout=30)
            reader.join(timeout=10)
            process.stdout.close()


@dataclass(frozen=True)
class Answers:
    """Of each request, in seconds: from its moment to its answer, from its moment until the model had it, and how long
    that took.
    """

    took: Floats
    waited: Floats
    device: Floats

    @property
    def way_back(self):
        """Seconds from the model to the caller."""
        return self.took - self.waited - self.device


async def answers(settings, arrivals, seconds, *, name, lead):
    """Send each request at its moment from *lead* seconds on, whatever has been answered."""
    took, waited, device = (np.full(len(arrivals), np.nan) for _ in range(3))
    async with open_broker(settings.broker, lock_duration=settings.lock_duration) as broker:
        inbox = await broker.open_inbox()
        start = time.monotonic() + lead

        async def hear():
            left = len(arrivals)
            async for message in inbox:
                assert failure_of(message) is None
                number = int(message.correlation_id.rpartition("-")[2])
                took[number] = time.monotonic() - start - arrivals[number]
                spent = timings_of(message)
                waited[number], device[number] = spent.queued + spent.batched, spent.device
                left -= 1
                if not left:
                    return

        hearing = asyncio.create_task(hear())
        for number, (at, each) in enumerate(zip(arrivals, seconds, strict=True)):
            await asyncio.sleep(max(0.0, start + at - time.monotonic()))  # open loop: this is the load itself
            body = f"{each:g}".encode()
            id_, now = f"{name}-{number}", time.time()
            request = Message(id=id_, time=now, body=body, content_type="text/plain", reply_to=inbox.address)
            await broker.send("sleeper", [request])
        async with asyncio.timeout(120.0):
            await hearing
        await inbox.close()
    return Answers(took, waited, device)


@dataclass(frozen=True)
class Start:
    """What came of one start: how long each answer took, and what the workers were paid for, in seconds."""

    latencies: Floats
    cost: float


async def first_day(project, settings, seconds):
    """Serve inputs of *seconds* one by one, each alone, so that the model and its queue are known; how long one takes
    from its sender to the model. Between them is next to no time: a machine that has slept a while is slow to wake.
    """
    gaps = seconds + 0.05
    with autoscaling(project) as scaling:
        await eventually(lambda: any(map(is_ready, scaling.lives.values())), within=60.0, what="the first worker")
        alone = await answers(settings, np.cumsum(gaps) - gaps, seconds, name="warm", lead=0.2)
        await eventually(lambda: not scaling.lives, within=60.0, what="no workers")
    return float(np.median(alone.waited))


async def real_start(project, settings, arrivals, seconds, *, name):
    """What came of the trace, and of the workers, with an autoscaler that remembers nothing."""
    with autoscaling(project) as scaling:
        got = await answers(settings, arrivals, seconds, name=name, lead=SILENCE)
        await eventually(lambda: not scaling.lives, within=60.0, what="no workers")
    assert not scaling.died
    return got, scaling


def simulated_starts(settings, arrivals, seconds, profile, scaling, *, transit):
    """The same with workers that take as long to come and to leave as those of *scaling* did."""
    loads = [life[1] - life[0] for life in sorted(scaling.ended) if is_loaded(life)]
    leave = float(np.mean(scaling.leaving)) if scaling.leaving else 0.0
    rules = rules_of(settings.models["sleeper"].scaling, profile)
    nbytes = np.array([len(f"{one:g}") for one in seconds], dtype=np.int64)
    for phase in PHASES:
        start = SILENCE + phase
        trace = Trace("real", start + arrivals, seconds, nbytes, start + float(arrivals[-1]) + AFTERWARDS)
        machines = Measured(loads, leave=leave)
        curve = Curve(each=float(seconds.mean()))
        world = World(curve, machines, times=profile.times, warm_up=SILENCE, transit=transit)
        outcome = simulate(trace, Setting("real", rules, LocalSettings(look_every=1.0)), world, seed=1)
        yield Start(outcome.latencies, outcome.worker_seconds)


def figures(starts):
    """Within how long half and 99 % of all answers came, and the mean cost."""
    together = np.concatenate([start.latencies for start in starts])
    return [float(one) for one in (*np.quantile(together, [0.5, 0.99]), np.mean([start.cost for start in starts]))]


def usual(seconds):
    """FIRST inputs such as *seconds* are, the heavy ones in their proportion."""
    step = len(seconds) // FIRST
    return np.sort(seconds)[step // 2 :: step]


@pytest.mark.parametrize("shape", [steady, mixed, waves, jobs, growing])
async def test_latency_and_cost_are_those_of_the_real_system(tmp_path, shape, record_property):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (tmp_path / "dumbwaiter.toml").write_text(SETTINGS)
    settings = load_settings(tmp_path / "dumbwaiter.toml", environ={})
    arrivals, seconds = shape(np.random.default_rng(11))
    way_in = await first_day(tmp_path, settings, usual(seconds))
    real, simulated, transits = [], [], []
    for number in range(STARTS):
        profile = await load_profile(open_store(settings.blobs), "sleeper")  # each start adds to it
        got, scaling = await real_start(tmp_path, settings, arrivals, seconds, name=f"start-{number}")
        transit = way_in + float(np.median(got.way_back) + np.median(got.device - seconds))
        real.append(Start(got.took, sum(life[-1] - life[0] for life in scaling.ended)))
        simulated += simulated_starts(settings, arrivals, seconds, profile, scaling, transit=transit)
        transits.append(round(transit, 4))
    pairs = list(zip(figures(real), figures(simulated), strict=True))
    each = [[round(one, 3) for one in figures([start])] for start in real]
    said = ", ".join(f"{one:.3f} real, {other:.3f} simulated" for one, other in pairs)
    said = f"{shape.__name__}: p50, p99, worker-seconds {said}; transits {transits}; each of the real {each}"
    sys.stderr.write(f"\n{said}\n")
    record_property("agreement", said)
    for (measured, planned), within in zip(pairs, (0.10, 0.10, 0.05), strict=True):
        assert planned == pytest.approx(measured, rel=within), said
