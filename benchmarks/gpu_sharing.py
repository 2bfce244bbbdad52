"""Several models on one GPU: answers, out-of-memory, waits and throughput, against each model alone on it.

Usage: python benchmarks/gpu_sharing.py [--device cuda:1] [--limit 24GiB] [--seconds 20] [--json | --markdown]

The models take 3/8 and 6/8 of the limit when they run. Admission's reserve is left free beside it, a neighbour holds
the rest of the card. They are served by real workers over SQLite, first alone, then together, with more requests
waiting than they can answer. Nothing is downloaded.
It takes less than five minutes. Exit code 1: somebody ran out of memory, or was not answered; 2: there is no such GPU.
With --device fake:8GiB the same runs on a device that is none, with models that only sleep.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import msgspec  # noqa: E402 - the benchmarks' own folder must come first
from rich.console import Console  # noqa: E402

from dumbwaiter.answers import raise_for_failure  # noqa: E402
from dumbwaiter.asking import Asker  # noqa: E402
from dumbwaiter.blobs import open_store  # noqa: E402
from dumbwaiter.brokers import open_broker  # noqa: E402
from dumbwaiter.config.units import parse_size  # noqa: E402
from dumbwaiter.devices.contract import Device  # noqa: E402
from dumbwaiter.devices.host_memory import machine_memory  # noqa: E402
from dumbwaiter.devices.ledger import Ledger  # noqa: E402
from dumbwaiter.devices.opening import open_device  # noqa: E402
from dumbwaiter.devices.sharing import ledger_path  # noqa: E402
from dumbwaiter.errors import BrokerUnavailableError, DumbwaiterError, QueueNotFoundError  # noqa: E402
from dumbwaiter.message import Message  # noqa: E402
from dumbwaiter.policies.admission import LEAST_RESERVE, RESERVE, Seat  # noqa: E402
from gpu_sharing_card import Copies, Size  # noqa: E402
from gpu_sharing_table import Case, Report, Together, described, report_as_markdown, this_machine  # noqa: E402

GIB = 2**30
CASES = {
    "activations": ("pictures-3", "pictures-6"),
    "weights": ("blocks-3", "blocks-6"),
    "three": ("pictures-3", "pictures-6", "blocks-3"),
}
FAKE_DEFAULTS = {"context": "256MiB", "load": "10GB", "park": "20GB", "wake": "20GB"}
#: An answer may differ by so much from that of the model alone: sums in another batch have another order.
TOLERANCE = 0.02
LONGEST_START, LONGEST_ANSWER, LOOK_EVERY = 120.0, 120.0, 0.02
console = Console(stderr=True)


class Bench:
    """A folder with a broker, settings for all models, and the processes that were started."""

    def __init__(self, folder: Path, device: Device, sizes: dict[str, Size]) -> None:
        self.folder = folder
        self.device = device
        self.broker_url = f"sqlite://{folder}/queue.db"
        self.store_url = f"file://{folder}/blobs"
        self.notes = folder / "out-of-memory"
        self.log = folder / "workers.log"
        settings = [
            f'broker = "{self.broker_url}"',
            f'blobs = "{self.store_url}"',
            *(f'{name} = "{folder}/{name}"' for name in ("slots", "ledgers", "footprints")),
            *(self._section(name, size) for name, size in sizes.items()),
        ]
        (folder / "dumbwaiter.toml").write_text("\n".join(settings))

    def _section(self, name: str, size: Size) -> str:
        parameters = ", ".join(f"{key} = {value}" for key, value in size.parameters.items())
        return (
            f'[models.{name}]\ntarget = "gpu_sharing_models:{size.target}"\nproject = "{HERE}"\n'
            f'device = "{self.device.address}"\nparameters = {{ {parameters}, notes = "{self.notes}" }}'
        )

    @contextlib.contextmanager
    def serving(self, models: Sequence[str]) -> Iterator[None]:
        """A worker for each of *models*."""
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self.log.open("ab"))
            workers: list[subprocess.Popen[bytes]] = []
            stack.callback(lambda: [worker.wait() for worker in workers])
            for model in models:
                command = [sys.executable, "-m", "dumbwaiter", "worker", model]
                command += ["--config", str(self.folder / "dumbwaiter.toml")]
                workers.append(subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log))
                stack.callback(workers[-1].terminate)
            yield

    def out_of_memory(self) -> int:
        """How many batches, and wakings, have lacked memory so far."""
        noted = len(self.notes.read_text().split()) if self.notes.exists() else 0
        return noted + self.log.read_bytes().count(b"the model cannot be woken now")


class Load:
    """Requests to one model, so many always under way, and what became of them."""

    def __init__(self, asker: Asker, model: str, expected: dict[bytes, float]) -> None:
        self.asker, self.model, self.expected = asker, model, expected
        self.waits: list[float] = []
        self.answered_at: list[float] = []
        self.sent = self.failed = 0

    async def warm(self) -> float:
        """Wait until the model answers; how long a lone request takes then."""
        give_up_at = time.monotonic() + LONGEST_START
        while True:
            try:
                await self._ask(0)
                break
            except (QueueNotFoundError, BrokerUnavailableError):
                if time.monotonic() > give_up_at:
                    raise
                await asyncio.sleep(0.05)
        started = time.monotonic()
        for digit in range(4):
            await self._ask(digit)
        return (time.monotonic() - started) / 4

    async def keep_up(self, in_flight: int, until: float) -> None:
        """Have *in_flight* requests waiting *until* then (monotonic), and all of them answered."""
        await asyncio.gather(*(self._ask_on(until) for _ in range(in_flight)))

    async def _ask_on(self, until: float) -> None:
        while (started := time.monotonic()) < until:
            self.sent += 1
            try:
                await self._ask(self.sent % 10)
            except (DumbwaiterError, AssertionError) as error:
                self.failed += 1
                console.print(f"[red]{self.model}: {type(error).__name__}: {error}")
                await asyncio.sleep(0.1)
            else:
                self.answered_at.append(time.monotonic())
                self.waits.append(self.answered_at[-1] - started)

    async def _ask(self, digit: int) -> None:
        message = Message(body=b"%d" % digit, content_type="application/octet-stream", time=time.time())
        answer = raise_for_failure(await self.asker.ask(self.model, message, timeout=LONGEST_ANSWER))
        value = float(answer.body)
        expected = self.expected.setdefault(message.body, value)
        if abs(value - expected) > TOLERANCE * abs(expected):
            raise AssertionError(f"the answer to {digit} was {expected}, and is {value} now")

    def rate(self, began: float, until: float) -> float:
        """Answers per second in that time."""
        return sum(at < until for at in self.answered_at) / (until - began)

    def wait_of(self, part: float) -> float:
        """The seconds that this *part* of the requests did not exceed; infinite if none was answered."""
        waits = sorted(self.waits)
        return waits[math.ceil(part * len(waits)) - 1] if waits else math.inf

    def longest_pause(self, began: float) -> float:
        """Between two answers, in seconds."""
        moments = [began, *self.answered_at]
        return max((later - earlier for earlier, later in itertools.pairwise(moments)), default=0.0)


class Moves:
    """How often each model was parked and woken: its seat in the ledger is looked at, many times a second."""

    def __init__(self, ledger: Ledger[Seat]) -> None:
        self._ledger = ledger
        self.parks: dict[str, int] = {}
        self.wakes: dict[str, int] = {}

    async def watch(self) -> None:
        """Until cancelled."""
        was_away: dict[str, bool] = {}
        while True:
            async with self._ledger.turn() as turn:
                living = turn.living
            for _, seat in living:
                is_away = seat.load_seconds > 0.0
                before = was_away.setdefault(seat.model, is_away)
                if is_away != before:
                    counted = self.parks if is_away else self.wakes
                    counted[seat.model] = counted.get(seat.model, 0) + 1
                was_away[seat.model] = is_away
            await asyncio.sleep(LOOK_EVERY)


@contextlib.asynccontextmanager
async def watching(bench: Bench) -> AsyncIterator[Moves]:
    """Count what moves meanwhile."""
    path = ledger_path(bench.folder / "ledgers", bench.device.name)
    ledger = await asyncio.to_thread(Ledger.look, path, record=Seat)
    moves = Moves(ledger)
    task = asyncio.create_task(moves.watch())
    try:
        yield moves
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        ledger.close()


async def alone(bench: Bench, asker: Asker, load: Load, seconds: float) -> tuple[float, int]:
    """The model's rate with nobody else there, and how many requests it needs waiting to have enough of them."""
    with bench.serving([load.model]):
        each = await load.warm()
        in_flight = max(4, min(16, int(0.5 / each) + 1))
        load = Load(asker, load.model, load.expected)
        began = time.monotonic()
        await load.keep_up(in_flight, began + seconds)
        if load.failed:
            raise SystemExit(f"{load.model} alone failed {load.failed} times; see above")
        return load.rate(began, began + seconds), in_flight


async def together(
    bench: Bench, name: str, loads: Sequence[Load], solo: dict[str, tuple[float, int]], seconds: float
) -> Case:
    """All of *loads* at once, once all are ready."""
    with bench.serving([load.model for load in loads]):
        await asyncio.gather(*(load.warm() for load in loads))
        lacked = bench.out_of_memory()
        async with watching(bench) as moves:
            began = time.monotonic()
            until = began + seconds
            await asyncio.gather(*(load.keep_up(solo[load.model][1], until) for load in loads))
        lacked = bench.out_of_memory() - lacked
    models = [
        Together(
            model=load.model,
            alone=solo[load.model][0],
            rate=load.rate(began, until),
            sent=load.sent,
            answered=len(load.waits),
            p99=load.wait_of(0.99),
            longest=load.wait_of(1.0),
            longest_pause=load.longest_pause(began),
            parks=moves.parks.get(load.model, 0),
            wakes=moves.wakes.get(load.model, 0),
        )
        for load in loads
    ]
    return Case(name=name, models=models, out_of_memory=lacked)


async def run_cases(bench: Bench, cases: Sequence[str], seconds: float) -> list[Case]:
    """Each model alone, then the cases."""
    expected: dict[str, dict[bytes, float]] = {}
    solo: dict[str, tuple[float, int]] = {}
    found = []
    async with open_broker(bench.broker_url) as broker, Asker(broker, open_store(bench.store_url)) as asker:
        for model in dict.fromkeys(model for case in cases for model in CASES[case]):
            console.print(f"{model} alone")
            load = Load(asker, model, expected.setdefault(model, {}))
            solo[model] = await alone(bench, asker, load, seconds / 2)
        for case in cases:
            console.print(f"{' and '.join(CASES[case])} together")
            loads = [Load(asker, model, expected[model]) for model in CASES[case]]
            found.append(await together(bench, case, loads, solo, seconds))
    return found


# --- the device ---


def opened(address: str, folder: Path) -> Device:
    """The device to measure; ends the program where there is none."""
    if address.startswith("fake:"):
        capacity, _, query = address.removeprefix("fake:").partition("?")
        given = dict(part.partition("=")[::2] for part in query.split("&") if part)
        options = {"path": str(folder / "fake-card"), **FAKE_DEFAULTS, **given}
        address = f"fake:{capacity}?" + "&".join(f"{name}={value}" for name, value in options.items())
    try:
        device = open_device(address)
    except DumbwaiterError as error:
        what = "no CUDA device to measure" if address.startswith(("auto", "cuda")) else "this device cannot be measured"
        print(f"{what}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if device.kind == "host":
        text = "no CUDA device to measure: no GPU is visible here; --device fake:8GiB shows the flow without one"
        print(text, file=sys.stderr)
        raise SystemExit(2)
    return device


@contextlib.contextmanager
def asked(device: Device, command: str, nbytes: int) -> Iterator[Any]:
    """What a process of its own says of the device; it lives as long as this context."""
    arguments = [sys.executable, str(HERE / "gpu_sharing_card.py"), command, device.address, str(nbytes)]
    environment = {**os.environ, **device.environment()}
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    with process:
        try:
            line = process.stdout.readline() if process.stdout else b""
            if not line:
                raise SystemExit(f"cannot ask {device.name} for {command}: exit code {process.wait()}, see above")
            yield msgspec.json.decode(line)
        finally:
            if process.stdin:
                process.stdin.close()


def limit_for(device: Device, wanted: str | None) -> int:
    """Bytes that the models share: as *wanted*, or as much as is free, as the host can park, and 24 GiB at most."""
    free = device.capacity - device.used()
    if wanted is not None:
        limit = parse_size(wanted)
        if limit > free:
            raise SystemExit(f"--limit {wanted} is more than {free / GIB:.1f} GiB, which are free on {device.name}")
        return limit
    if device.kind == "fake":
        return free
    return int(min(free * 0.9, 24 * GIB, machine_memory().available / 1.6))


def reserve_of(device: Device) -> int:
    """Bytes that admission gives to nobody: on a large card much of a small limit."""
    return max(LEAST_RESERVE, math.ceil(RESERVE * device.capacity))


def measure(device: Device, folder: Path, limit: int, cases: Sequence[str], seconds: float) -> Report:
    """All of it."""
    started = time.monotonic()
    with asked(device, "sizes", limit) as answer:
        sizes = msgspec.convert(answer, dict[str, Size])
    with asked(device, "copies", limit * 3 // 8) as answer:
        copies = msgspec.convert(answer, Copies)
    with asked(device, "hold", limit + reserve_of(device)):
        console.print(f"{device.name}: {(device.capacity - device.used()) / GIB:.2f} GiB left for the models")
        bench = Bench(folder, device, sizes)
        try:
            found = asyncio.run(run_cases(bench, cases, seconds))
        except BaseException:
            console.print(bench.log.read_text(errors="replace")[-4000:], markup=False)
            raise
    return Report(
        device=described(device),
        machine=this_machine(),
        is_fake=device.kind == "fake",
        limit=limit,
        seconds=seconds,
        took=time.monotonic() - started,
        sizes=sizes,
        copies=copies,
        cases=found,
    )


def main() -> int:
    """Measure, print, and say by the exit code whether anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="cuda:1, or fake:8GiB (default: the first GPU)")
    parser.add_argument("--limit", help="memory that the models share (default: 24GiB, or 90 %% of what is free)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each case runs; alone half of it")
    parser.add_argument("--only", choices=sorted(CASES), help="one case")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--markdown", action="store_true", help="the default")
    options = parser.parse_args()
    # However it is ended, no process stays behind.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with tempfile.TemporaryDirectory(prefix="dumbwaiter-gpu-") as name:
        folder = Path(name)
        with contextlib.closing(opened(options.device, folder)) as device:
            cases = [options.only] if options.only else list(CASES)
            try:
                report = measure(device, folder, limit_for(device, options.limit), cases, options.seconds)
            except KeyboardInterrupt:
                print("interrupted: nothing was measured to its end", file=sys.stderr)
                return 130
    print(msgspec.json.encode(report).decode() if options.json else report_as_markdown(report))
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
