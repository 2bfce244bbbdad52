"""What admission to a shared device adds to a batch: the wait for a grant, and processor time, with 8 workers.

Usage: python benchmarks/admission_overhead.py [--seconds 3] [--quick] [--json]

Each worker is a process with an admission of its own at one ledger, as workers have; instead of a model there is a
sleep. The device is a fake one, for nothing is computed. Waits are those that a batch sees: from the moment at which
the last one is done to the moment at which the next one may run.

* asked ahead: the next grant is asked for while a batch runs, as workers do when much waits in their queue
* asked late: it is asked for when the last one was given back, as workers do when little waits
* one at a time: two workers of whose batches only one fits; from one's end to the other's beginning
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import msgspec  # noqa: E402 - the benchmarks' own folder must come first

from dumbwaiter.devices.admission import Admission, Moved, Unlimited, What  # noqa: E402
from dumbwaiter.devices.sharing import Terms, open_admission  # noqa: E402
from dumbwaiter.policies.footprints import Footprint, Measured  # noqa: E402

GIB = 2**30
BATCH = 8
WEIGHTS = GIB
ADDS_AT_MOST, P99_AT_MOST = 50e-6, 1e-3


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured: *workers* whose batches take *batch* seconds and *activation* bytes of the device."""

    name: str
    workers: int
    batch: float
    activation: int = GIB // 2
    is_ahead: bool = False
    is_one_at_a_time: bool = False


SETTINGS = (
    Setting(name="asked ahead", workers=8, batch=0.01, is_ahead=True),
    Setting(name="asked late", workers=8, batch=0.01),
    Setting(name="asked late, batches take no time", workers=8, batch=0.0),
    Setting(name="asked late, alone", workers=1, batch=0.01),
    Setting(name="one at a time, 2 workers", workers=2, batch=0.01, activation=40 * GIB, is_one_at_a_time=True),
)


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker has seen: the monotonic moments at which batches could begin, and were done; in seconds."""

    granted: Sequence[float]
    done: Sequence[float]
    processor: float
    processor_without: float
    """What a batch takes of the processor without admission."""
    wait_without: float
    """How long the next batch waits without admission: that is the event loop's own."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Waits for a grant and processor time per batch, in seconds. *loop*: what the median is without admission."""

    name: str
    workers: int
    batches: int
    p50: float
    p99: float
    longest: float
    loop: float
    processor: float

    @property
    def meets_targets(self) -> bool:
        """Whether admission adds as little as it should."""
        return self.p50 - self.loop < ADDS_AT_MOST and self.p99 < P99_AT_MOST


class Still:
    """A mover of a runner that has nothing to move."""

    async def move(self, what: What) -> Moved | None:
        """Done."""
        return Moved(reserved=0 if what == "park" else WEIGHTS, seconds=0.0)

    async def retire(self) -> None:
        """Nothing to end."""


async def batches(admission: Admission, setting: Setting, seconds: float) -> tuple[list[float], list[float]]:
    """Run batches for so long; when each could begin, and when it was done."""
    granted: list[float] = []
    done: list[float] = []
    until = time.monotonic() + seconds
    asked = asyncio.ensure_future(admission.acquire(BATCH))
    while True:
        grant = await asked
        granted.append(time.monotonic())
        grant.shrink_to(BATCH)
        if setting.is_ahead:
            asked = asyncio.ensure_future(admission.acquire(BATCH))
        await asyncio.sleep(setting.batch)
        done.append(time.monotonic())
        grant.give_back(grant.outstanding)
        if not setting.is_ahead:
            asked = asyncio.ensure_future(admission.acquire(BATCH))
        if done[-1] >= until:
            asked.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asked
            return granted, done


async def work(folder: Path, place: int, setting: Setting, seconds: float) -> Told:
    """One worker, once its parent says so."""
    terms = Terms(
        model=f"model-{place}",
        target="nothing:Model",
        device=f"fake:64GiB?path={folder}/card",
        ledgers=folder,
        footprints=folder / "footprints",
    )
    sizes = {size: Measured(setting.activation, max(setting.batch, 1e-4), time.time()) for size in (1, 2, 4, BATCH)}
    footprint = Footprint(weights=WEIGHTS, parked=0, batches={"any": sizes})
    async with open_admission(terms) as admission:
        admission.attach(Still(), _always)
        looking = asyncio.create_task(admission.run())
        await admission.make_place()
        admission.settle_in(footprint, BATCH)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await batches(admission, setting, seconds / 10)
        began = time.process_time()
        granted, done = await batches(admission, setting, seconds)
        processor = (time.process_time() - began) / len(done)
        print("done", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
    began = time.process_time()
    granted_without, done_without = await batches(Unlimited(), setting, max(0.1, seconds / 10))
    return Told(
        granted=granted,
        done=done,
        processor=processor,
        processor_without=(time.process_time() - began) / len(done_without),
        wait_without=_part(sorted(_between(done_without, granted_without)), 0.5),
    )


async def _always() -> bool:
    return True


def measure(setting: Setting, seconds: float) -> Result:
    """All workers of one setting, and what they saw."""
    with tempfile.TemporaryDirectory(prefix="dumbwaiter-admission-") as folder, contextlib.ExitStack() as stack:
        asked = msgspec.json.encode((folder, setting, seconds)).decode()
        workers = []
        for place in range(setting.workers):
            command = [sys.executable, __file__, "--worker", str(place), asked]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(process.kill)
            workers.append(stack.enter_context(process))
        told = []
        for word in ("ready", "done"):
            for process in workers:
                if _line_of(process) != word:
                    raise SystemExit(f"a worker of {setting.name!r} has failed; see above")
            for process in workers:
                _say_go(process)
        told = [msgspec.json.decode(_line_of(process), type=Told) for process in workers]
    return summed_up(setting, told)


def _line_of(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip() if process.stdout else ""


def _say_go(process: subprocess.Popen[str]) -> None:
    if process.stdin:
        process.stdin.write("\n")
        process.stdin.flush()


def summed_up(setting: Setting, told: Sequence[Told]) -> Result:
    """Of all workers together."""
    waits = sorted(_handed_over(told) if setting.is_one_at_a_time else _waits(told))
    count = sum(len(one.done) for one in told)
    processor = sum((one.processor - one.processor_without) * len(one.done) for one in told) / count
    return Result(
        name=setting.name,
        workers=setting.workers,
        batches=count,
        p50=_part(waits, 0.5),
        p99=_part(waits, 0.99),
        longest=_part(waits, 1.0),
        loop=statistics.median(one.wait_without for one in told),
        processor=processor,
    )


def _waits(told: Sequence[Told]) -> list[float]:
    return [wait for one in told for wait in _between(one.done, one.granted)]


def _between(done: Sequence[float], granted: Sequence[float]) -> list[float]:
    """From the end of each batch to the leave for the next; nothing where that came before."""
    return [max(0.0, next_ - ended) for ended, next_ in zip(done, granted[1:], strict=False)]


def _handed_over(told: Sequence[Told]) -> list[float]:
    """From the end of one's batch to the beginning of another's."""
    events = sorted(
        (moment, is_grant, place)
        for place, one in enumerate(told)
        for is_grant, moments in ((False, one.done), (True, one.granted))
        for moment in moments
    )
    waits, last_done, whose = [], math.inf, -1
    for moment, is_grant, place in events:
        if not is_grant:
            last_done, whose = moment, place
        elif place != whose and moment >= last_done:
            waits.append(moment - last_done)
    return waits


def _part(waits: Sequence[float], part: float) -> float:
    return waits[max(0, math.ceil(part * len(waits)) - 1)] if waits else math.nan


def as_markdown(results: Sequence[Result]) -> str:
    """The table."""
    from run import machine  # noqa: PLC0415 - the workers need none of what it imports

    columns = (
        "next grant", "workers", "batches", "wait p50", "of that the loop's own", "wait p99", "longest",
        "processor per batch", "adds < 50 µs, p99 < 1 ms",
    )  # fmt: skip
    head = f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"
    rows = [
        f"| {one.name} | {one.workers} | {one.batches:,} | {one.p50 * 1e6:,.0f} µs | {one.loop * 1e6:,.0f} µs "
        f"| {one.p99 * 1e6:,.0f} µs | {one.longest * 1e3:,.1f} ms | {one.processor * 1e6:,.0f} µs "
        f"| {'yes' if one.meets_targets else '**no**'} |"
        for one in results
    ]
    return "\n".join([head, *rows, "", machine()])


def main() -> None:
    """Measure all settings, one after the other."""
    if sys.argv[1:2] == ["--worker"]:
        folder, setting, seconds = msgspec.json.decode(sys.argv[3], type=tuple[str, Setting, float])
        told = asyncio.run(work(Path(folder), int(sys.argv[2]), setting, seconds))
        print(msgspec.json.encode(told).decode(), flush=True)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row")
    parser.add_argument(
        "--quick", action="store_true", help="two workers for a tenth of a second: to see that it works"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    settings: Sequence[Setting] = SETTINGS
    seconds = options.seconds
    if options.quick:
        settings = tuple(msgspec.structs.replace(one, workers=min(one.workers, 2)) for one in SETTINGS)
        seconds = 0.1
    results = [measure(setting, seconds) for setting in settings]
    print(msgspec.json.encode(results).decode() if options.json else as_markdown(results))


if __name__ == "__main__":
    main()
