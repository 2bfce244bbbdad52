"""The simulator against `dumbwaiter autoscale` over a real queue: real workers of a model that sleeps.

What a worker takes to come is measured in the run itself; all else the simulator has to know. A machine that is busy
with other things makes the real system later than it is: then a trial says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from dumbwaiter.answers import failure_of
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
from dumbwaiter.plan.traces import Trace
from dumbwaiter.testing import eventually
from processes import environment

pytestmark = [pytest.mark.trial, pytest.mark.anyio, pytest.mark.timeout(400)]

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
LENGTH = 90.0
SILENCE = 6.0
"""Seconds in which `autoscale` starts, and looks at a pool without requests."""
AFTERWARDS = 60.0
"""Long enough for all workers to leave."""
PHASES = np.linspace(0.0, GLANCE_EVERY, 8, endpoint=False)
"""Nobody can know when `autoscale` glances at an empty queue: so many seconds later or sooner, all are simulated."""


def steady(rng):
    return np.sort(rng.uniform(0.0, LENGTH, 900)), np.full(900, 0.25)


def mixed(rng):
    arrivals = np.sort(rng.uniform(0.0, LENGTH, 700))
    return arrivals, np.where(rng.random(700) < 0.1, 1.5, 0.15)


def waves(rng):
    arrivals = np.concatenate([start + np.sort(rng.uniform(0.0, 20.0, 250)) for start in (0.0, 35.0, 70.0)])
    return arrivals, np.full(len(arrivals), 0.4)


def jobs(rng):
    arrivals = np.concatenate([np.full(160, start) + np.arange(160) * 0.005 for start in (0.0, 50.0)])
    return arrivals, np.full(len(arrivals), 0.5)


def growing(rng):
    arrivals = np.sort(LENGTH * np.sqrt(rng.uniform(0.0, 1.0, 800)))
    return arrivals, np.full(800, 0.3)


@dataclass
class Autoscaling:
    """`dumbwaiter autoscale` and the lives of its workers, by the moments at which it told of them."""

    process: subprocess.Popen
    lives: dict[str, list[float]] = field(default_factory=dict)
    ended: list[list[float]] = field(default_factory=list)
    leaving: list[float] = field(default_factory=list)
    """Seconds from retiring a worker to its end, of those retired while all was idle."""
    idle_at: float = 0.0

    def read(self):
        for line in self.process.stdout:
            event, now = json.loads(line), time.monotonic()
            name = event.get("name")
            if event["event"] == "started":
                self.lives[name] = [now]
            elif event["event"] == "state" and event["state"] == "ready" and len(self.lives.get(name, ())) == 1:
                self.lives[name].append(now)
            elif event["event"] == "scaled" and event["why"] == "idle":
                self.idle_at = now
            elif event["event"] in {"left", "died"} and name in self.lives:
                self.ended.append([*self.lives.pop(name), now])
                if self.idle_at:
                    self.leaving.append(now - self.idle_at)


def is_ready(life):
    return len(life) > 1


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


async def latencies(settings, arrivals, seconds, *, name, lead):
    """Send each request at its moment from *lead* seconds on, whatever has been answered; seconds from then to its
    answer.
    """
    answered = np.full(len(arrivals), np.nan)
    async with open_broker(settings.broker, lock_duration=settings.lock_duration) as broker:
        inbox = await broker.open_inbox()
        start = time.monotonic() + lead

        async def hear():
            left = len(arrivals)
            async for message in inbox:
                assert failure_of(message) is None
                number = int(message.correlation_id.rpartition("-")[2])
                answered[number] = time.monotonic() - start - arrivals[number]
                left -= 1
                if not left:
                    return

        hearing = asyncio.create_task(hear())
        for number, (at, each) in enumerate(zip(arrivals, seconds, strict=True)):
            await asyncio.sleep(max(0.0, start + at - time.monotonic()))  # open loop: this is the load itself
            body = f"{each:g}".encode()
            request = Message(id=f"{name}-{number}", body=body, content_type="text/plain", reply_to=inbox.address)
            await broker.send("sleeper", [request])
        async with asyncio.timeout(120.0):
            await hearing
        await inbox.close()
    return answered


@pytest.mark.parametrize("shape", [steady, mixed, waves, jobs, growing])
async def test_latency_and_cost_are_those_of_the_real_system(tmp_path, shape, record_property):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (tmp_path / "dumbwaiter.toml").write_text(SETTINGS)
    settings = load_settings(tmp_path / "dumbwaiter.toml", environ={})
    arrivals, seconds = shape(np.random.default_rng(11))
    with autoscaling(tmp_path) as scaling:
        # So that the model, its profile and its queue are known, as they are after a first day.
        await eventually(lambda: any(map(is_ready, scaling.lives.values())), within=60.0, what="the first worker")
        await latencies(settings, np.arange(5) * 0.2, seconds[:5], name="warm", lead=0.2)
        await eventually(lambda: not scaling.lives, within=60.0, what="no workers")
    profile = await load_profile(open_store(settings.blobs), "sleeper")
    with autoscaling(tmp_path) as scaling:  # another one, which remembers nothing of those
        real = await latencies(settings, arrivals, seconds, name="real", lead=SILENCE)
        await eventually(lambda: not scaling.lives, within=60.0, what="no workers")
    lives = sorted(scaling.ended)
    loads = [life[1] - life[0] for life in lives if len(life) == 3]
    cost = sum(life[-1] - life[0] for life in lives)

    rules = rules_of(settings.models["sleeper"].scaling, profile)
    nbytes = np.array([len(f"{one:g}") for one in seconds], dtype=np.int64)
    leave = float(np.mean(scaling.leaving)) if scaling.leaving else 0.0
    setting = Setting("real", rules, LocalSettings(look_every=1.0))
    runs = []
    for phase in PHASES:
        start = SILENCE + phase
        trace = Trace(shape.__name__, start + arrivals, seconds, nbytes, start + LENGTH + AFTERWARDS)
        machines = Measured(loads, leave=leave)
        world = World(Curve(each=float(seconds.mean())), machines, times=profile.times, warm_up=SILENCE)
        runs.append(simulate(trace, setting, world, seed=1))

    report = {
        "p50": (np.median(real), np.mean([np.median(one.latencies) for one in runs])),
        "p99": (np.quantile(real, 0.99), np.mean([np.quantile(one.latencies, 0.99) for one in runs])),
        "cost": (cost, np.mean([one.worker_seconds for one in runs])),
        "workers": (len(scaling.ended), np.mean([one.ordered for one in runs])),
        "leave": (leave, leave),
        "load": (min(loads), max(loads)),
    }
    told = [[round(moment - lives[0][0], 2) for moment in life] for life in lives]
    said = ", ".join(f"{name} {one:.3f} real, {other:.3f} simulated" for name, (one, other) in report.items())
    changes = [(round(at - SILENCE, 2), count) for at, count in runs[0].counts]
    said = f"{shape.__name__}: {said}; lives of the real {told}; counts of the simulated {changes}"
    sys.stderr.write(f"\n{said}\n")
    record_property("agreement", said)
    assert report["p50"][1] == pytest.approx(report["p50"][0], rel=0.10), said
    assert report["p99"][1] == pytest.approx(report["p99"][0], rel=0.10), said
    assert report["cost"][1] == pytest.approx(report["cost"][0], rel=0.05), said
