"""How fast the simulator of `dumbwaiter plan` is: 10,000,000 requests on about 1,000 workers, in seconds.

python benchmarks/plan_speed.py [REQUESTS]
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np

from dumbwaiter.plan.actuation import LocalSettings, Machines
from dumbwaiter.plan.services import Curve
from dumbwaiter.plan.simulation import Setting, World, simulate
from dumbwaiter.plan.traces import Trace
from dumbwaiter.policies.scaling import Rules

REQUESTS = 10_000_000
WORKERS = 1_000
SECONDS_EACH = 0.15
BUSY = 0.9


def main(requests: int) -> None:
    """Print a line for each kind of queue."""
    rate = BUSY * WORKERS / SECONDS_EACH
    arrivals = np.cumsum(np.random.default_rng(1).exponential(1.0 / rate, requests))
    sizes = np.full(requests, 100_000, dtype=np.int64)
    rules = Rules(max_replicas=2 * WORKERS, min_replicas=WORKERS, cold_start=10.0)
    print(f"{requests:,} requests, at least {WORKERS:,} workers, looked at every 2 s")
    for name, curve, ahead in (
        ("as the running system: workers pull ahead", Curve(each=SECONDS_EACH), True),
        ("as in textbooks: nobody pulls ahead", Curve(each=SECONDS_EACH), False),
        ("batches of up to 16", Curve(fixed=0.5, each=0.12, max_batch=16), True),
    ):
        trace = Trace("speed", arrivals, np.full(requests, curve.each), sizes, float(arrivals[-1]))
        world = World(curve, Machines(load=10.0), pulls_ahead=ahead)
        began, used = time.perf_counter(), time.process_time()
        outcome = simulate(trace, Setting("speed", rules, LocalSettings()), world, seed=1)
        took, used = time.perf_counter() - began, time.process_time() - used
        p99 = float(np.quantile(outcome.latencies, 0.99))
        print(f"{name:45} {took:6.1f} s, {used:.1f} s of a core  (p99 {p99:.3g} s, {outcome.most} workers)")
    print(f"memory at the most: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS)
