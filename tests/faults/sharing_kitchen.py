"""Models that share one fake device: real worker processes over one SQLite file, as users start them.

Run as a program it is a worker whose admission is first-fit, to show what the policy is good for::

    sharing_kitchen.py MODEL
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter as Counted
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from dumbwaiter.answers import failure_of
from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.contract import Broker, Inbox
from dumbwaiter.cli import main
from dumbwaiter.devices import sharing
from dumbwaiter.devices.fake import FakeDevice
from dumbwaiter.devices.ledger import Ledger
from dumbwaiter.devices.opening import fake_options
from dumbwaiter.devices.sharing import ledger_path
from dumbwaiter.message import Failure, Message
from dumbwaiter.policies import admission
from dumbwaiter.policies.admission import Seat
from dumbwaiter.testing import eventually

GIB = 2**30
LOCK = 2.0
MODELS = '''
import json
import os
import time

from dumbwaiter.devices import fake

GIB = 2**30


class Fixed:
    """*weights* and, for a batch of four, *activation* in GiB; a batch runs for *seconds*."""

    max_batch = 4

    def __init__(self, weights, activation, seconds):
        self.activation, self.seconds = activation, seconds
        self.held = fake.hold(int(weights * GIB))

    sample_inputs = ["{}"]

    def __call__(self, orders: list[str]) -> list[str]:
        orders = [json.loads(order) for order in orders]
        began = time.monotonic()
        more = sum(order.get("more", 0.0) for order in orders)
        with fake.use(int((self.activation * len(orders) / 4 + more) * GIB), self.seconds):
            for order in orders:
                if "leak" in order:
                    fake.leak(int(order["leak"] * GIB))
                if "break" in order:
                    fake.break_context()
        return [json.dumps([began, time.monotonic(), len(orders), os.getpid()])] * len(orders)


class Movable(Fixed):
    def park(self):
        self.held.park()

    def wake(self):
        self.held.wake()
'''


@dataclass(frozen=True)
class Ran:
    """An answer: when its batch began and ended, on this machine's monotonic clock, its size, and its process."""

    model: str
    began: float
    ended: float
    size: int
    pid: int


@dataclass
class Served:
    """What came back. *failures* by id."""

    ran: list[Ran] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)
    times_answered: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def of(self, model: str, since: float = 0.0, until: float = float("inf")) -> list[Ran]:
        """The answers of *model* whose batches ended in that time, in order."""
        return sorted((one for one in self.ran if one.model == model and since <= one.ended < until), key=_began)

    def batches(self, model: str, since: float = 0.0, until: float = float("inf")) -> list[tuple[float, float]]:
        """The beginnings and ends of its batches."""
        return sorted({(one.began, one.ended) for one in self.of(model, since, until)})

    def longest_wait(self, model: str, since: float, until: float) -> float:
        """The longest time without a batch of *model* running, from *since* to *until*."""
        wait, last = 0.0, since
        for began, ended in self.batches(model):
            if ended > since and began < until:
                wait, last = max(wait, began - last), max(last, ended)
        return max(wait, until - last)

    def slowness(self, seconds: Mapping[str, float]) -> float:
        """How many times as long as the longest that is predicted the slowest batch ran, at least 1.0.

        *seconds* is what a batch of each model should take; twice that is predicted, as a grant may be prolonged once.
        """
        return max(1.0, *((one.ended - one.began) / (2 * seconds[one.model]) for one in self.ran))


def _began(ran: Ran) -> float:
    return ran.began


class Kitchen:
    """A folder with the settings of some models that share *device*, and the workers that run there."""

    def __init__(self, folder: Path, *, capacity: str = "8GiB", **options: str) -> None:
        self.folder = folder
        given = {"load": "4GB", "park": "10GB", "wake": "10GB", **options}
        query = "&".join(f"{name}={value}" for name, value in {"path": str(folder / "card"), **given}.items())
        self.address = f"fake:{capacity}?{query}"
        self.device = FakeDevice(fake_options(self.address))
        self.broker_url = f"sqlite:///{folder}/queue.db"
        self.store_url = f"file://{folder}/blobs"
        self._ledger: Ledger[Seat] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self._models: dict[str, str] = {}
        self.log = (folder / "workers.log").open("ab")
        (folder / "dishes.py").write_text(MODELS)

    def add(
        self,
        name: str,
        weights: float,
        activation: float,
        seconds: float,
        *,
        kind: str = "Movable",
        **settings: str | float,
    ) -> None:
        """One more model: *weights* and *activation* in GiB, *seconds* a batch of at most four."""
        lines = [f"[models.{name}]", f'target = "dishes:{kind}"', f"device = {json.dumps(self.address)}"]
        lines += [f"{setting} = {json.dumps(value)}" for setting, value in settings.items()]
        lines += [f"parameters = {{ weights = {weights}, activation = {activation}, seconds = {seconds} }}"]
        self._models[name] = "\n".join(lines)
        head = 'ledgers = "ledgers"\nfootprints = "footprints"\n'
        (self.folder / "dumbwaiter.toml").write_text(head + "\n\n".join(self._models.values()) + "\n")

    def start(self, name: str, *, is_first_fit: bool = False) -> subprocess.Popen[bytes]:
        """A worker of the model *name*."""
        command = [__file__] if is_first_fit else ["-m", "dumbwaiter", "worker"]
        environment = {
            **os.environ,
            "DUMBWAITER_BROKER": self.broker_url,
            "DUMBWAITER_BLOBS": self.store_url,
            "DUMBWAITER_LOCK_DURATION": str(LOCK),
        }
        process = subprocess.Popen(
            [sys.executable, *command, name], cwd=self.folder, env=environment, stdout=self.log, stderr=self.log
        )
        self.workers.append(process)
        return process

    def stop_all(self) -> None:
        """Have all workers leave in good order."""
        for process in self.workers:
            process.terminate()
        for process in self.workers:
            assert process.wait(30) == 0
        self.workers.clear()

    def said(self) -> str:
        """What all workers have logged."""
        return (self.folder / "workers.log").read_text()

    def close(self) -> None:
        for process in self.workers:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        self.log.close()
        if self._ledger is not None:
            self._ledger.close()
        self.device.close()

    # --- looking from outside ---

    @property
    def ledger_path(self) -> Path:
        return ledger_path(self.folder / "ledgers", self.device.name)

    def seats(self) -> dict[int, Seat]:
        """The seats of the living; none while nobody has made a ledger."""
        return self.all_seats()[0]

    def all_seats(self) -> tuple[dict[int, Seat], dict[int, Seat]]:
        """The seats of the living, and of the dead whose memory nobody has seen free yet."""
        if not self.ledger_path.exists():
            return {}, {}
        if self._ledger is None:
            self._ledger = Ledger.look(self.ledger_path, record=Seat)
        with self._ledger.turn() as turn:
            return dict(turn.living), dict(turn.orphaned)

    async def ready(self, count: int, *, within: float = 60.0) -> None:
        """Wait until so many were loaded and measured, parked since or not, and none of them does anything."""

        def are_ready() -> bool:
            seats = self.seats().values()
            return len(seats) == count and all(
                seat.full and seat.asked_at is None and seat.doing in {"idle", "polling"} for seat in seats
            )

        await eventually(are_ready, within=within, every=0.05, what=f"{count} models that were loaded")

    def assert_never_out_of_memory(self) -> None:
        memory = self.device.record()
        assert memory.refused == 0, f"{memory.refused} times out of memory\n{self.said()[-3000:]}"
        assert memory.most_used <= memory.capacity

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Counter]:
        async with open_broker(self.broker_url, lock_duration=LOCK) as broker:
            counter = Counter(self, broker, await broker.open_inbox())
            try:
                yield counter
            finally:
                await counter.close()


class Counter:
    """Where orders are placed and dishes come back."""

    def __init__(self, kitchen: Kitchen, broker: Broker, inbox: Inbox) -> None:
        self.kitchen = kitchen
        self.broker = broker
        self.store = open_store(kitchen.store_url)
        self.served = Served()
        self._inbox = inbox
        self.placed: list[str] = []
        self.bodies: defaultdict[str, list[bytes]] = defaultdict(list)
        self._open: dict[str, str] = {}
        self._reading = asyncio.create_task(self._read())

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        async for answer in self._inbox:
            name = answer.correlation_id or ""
            self.served.times_answered[name] += 1
            self.bodies[name].append(answer.body)
            model = self._open.pop(name, "")
            failure = failure_of(answer)
            if failure is not None:
                self.served.failures[name] = failure
            elif model:
                self.served.ran.append(Ran(model, *json.loads(answer.body)))

    def outstanding(self, model: str) -> int:
        return sum(1 for name in self._open.values() if name == model)

    async def place(self, model: str, orders: Sequence[Mapping[str, Any]], *, kept: bool = False) -> list[str]:
        """Send *orders*; their ids."""
        extensions = {"keep": "true"} if kept else {}
        messages = [
            Message(
                body=json.dumps(order).encode(),
                content_type="text/plain",
                reply_to=self._inbox.address,
                extensions=extensions,
            )
            for order in orders
        ]
        self._open.update((message.id, model) for message in messages)
        self.placed += [message.id for message in messages]
        await self.broker.create_queue(model)
        await self.broker.send(model, messages)
        return [message.id for message in messages]

    async def keep_busy(self, models: Sequence[str], until: float, *, backlog: int = 64, kept: bool = False) -> None:
        """See to it that *backlog* orders of each of *models* wait, until that moment of the monotonic clock."""
        while time.monotonic() < until:
            for model in models:
                if (missing := backlog - self.outstanding(model)) >= backlog // 4:
                    await self.place(model, [{}] * missing, kept=kept)
            await asyncio.sleep(0.05)

    async def all_answered(self, within: float = 60.0) -> None:
        give_up_at = time.monotonic() + within
        await eventually(lambda: not self._open or time.monotonic() > give_up_at, within=within + 1.0, every=0.05)
        assert not self._open, f"{len(self._open)} without an answer after {within} s: {dict(self._open)}"


@contextlib.contextmanager
def kitchen_in_memory(**options: str) -> Iterator[Kitchen]:
    """A kitchen whose device's folder is in memory, where there is such a file system."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="kitchen-", dir=shm if shm.is_dir() else None) as folder:
        it = Kitchen(Path(folder), **options)
        try:
            yield it
        finally:
            it.close()


@dataclass
class Watch:
    """What the ledger says of a model's tickets, looked at every few milliseconds.

    *bounds*: for each of its tickets, by the moment at which it was asked, the longest that it may wait by
    worst_wait() with the seats as they were when the ticket was first seen. *doing*: how often somebody on the device
    was seen doing what; *looks*: how often was looked.
    """

    kitchen: Kitchen
    model: str
    bounds: dict[float, float] = field(default_factory=dict)
    doing: Counted[str] = field(default_factory=Counted)
    looks: int = 0
    overcommitted: list[str] = field(default_factory=list)

    async def look_on(self, until: float) -> None:
        while time.monotonic() < until:
            self.look()
            await asyncio.sleep(0.01)

    def look(self) -> None:
        device = admission.Device(self.kitchen.device.name, self.kitchen.device.capacity)
        seats, _ = self.kitchen.all_seats()
        self.looks += 1
        self.doing.update({seat.doing for seat in seats.values()})
        given = sum(seat.resident + seat.granted for seat in seats.values())
        if given > device.limit:
            self.overcommitted.append(f"{given} of {device.limit}: {seats}")
        for place, seat in seats.items():
            if seat.model == self.model and seat.asked_at is not None and seat.asked_at not in self.bounds:
                bound = admission.worst_wait(device, seats, place, now=seat.asked_at)
                self.bounds[seat.asked_at] = bound


def runners_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The living runners of a worker."""
    try:
        children = psutil.Process(process.pid).children()
        return [one for one in children if one.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []


# --- a worker whose admission is first-fit ---


def first_fit(
    device: admission.Device, seats: Mapping[int, Seat], me: int, now: float, ladder: Sequence[admission.Rung] = ()
) -> admission.Grant | admission.Wait | admission.NeverFits:
    """Whoever fits right now runs, whoever is first in line."""
    return admission.decide(device, _without_tickets(seats, me), me, now, ladder)


def _without_tickets(seats: Mapping[int, Seat], me: int) -> dict[int, Seat]:
    """The seats as if only the one at *me* waited."""
    return {
        place: seat if place == me or seat.asked_at is None else admission.withdraw(seat)
        for place, seat in seats.items()
    }


if __name__ == "__main__":
    sharing.open_admission = functools.partial(sharing.open_admission, decide=first_fit)
    sys.argv[1:1] = ["worker"]
    main()
