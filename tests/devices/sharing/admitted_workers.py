"""Workers of one process that share a fake device by its real ledger; their runners take and give memory for real."""

from __future__ import annotations

import asyncio
import contextlib

from sharing_parts import MIB
from tenants import CONTEXT, PARKED

from dumbwaiter.devices.admission import Moved
from dumbwaiter.devices.fake import FakeDevice
from dumbwaiter.devices.fake_memory import SharedMemory
from dumbwaiter.devices.footprint_store import FootprintStore
from dumbwaiter.devices.ledger import Ledger
from dumbwaiter.devices.opening import fake_options
from dumbwaiter.devices.sharing.ledger_admission import LedgerAdmission
from dumbwaiter.devices.sharing.terms import Terms
from dumbwaiter.policies.admission import Seat
from dumbwaiter.testing.eventually import eventually

#: Of which 1000 MiB can be given out.
CAPACITY = 1256 * MIB


class Site:
    """A folder with a fake device, its ledger and a store of footprints."""

    def __init__(self, folder, **options):
        self.folder = folder
        self.ledger = folder / "ledgers" / "gpu.ledger"
        more = "".join(f"&{name}={value}" for name, value in options.items())
        self.address = f"fake:{CAPACITY // MIB}MiB?path={folder / 'gpu'}{more}"

    def open_ledger(self, *, patience=30.0):
        return Ledger.open(self.ledger, device="gpu", capacity=CAPACITY, record=Seat, patience=patience)

    def record(self):
        """What befell the device's memory."""
        device = FakeDevice(fake_options(self.address))
        try:
            return device.record()
        finally:
            device.close()

    def seats(self):
        """What living and dead processes say in the ledger."""
        ledger = self.open_ledger()
        try:
            with ledger.turn() as turn:
                return [seat for _, seat in turn.living], [seat for _, seat in turn.orphaned]
        finally:
            ledger.close()


class AdmittedWorker:
    """One of them, to be entered with ``async with``. It is a Mover, and keeps its runner as a keeper does."""

    def __init__(self, site, model, measured=None, *, park_after=300.0, patience=30.0, load_seconds=0.005):
        self.site = site
        self.measured = measured
        self.load_seconds = load_seconds
        self.store = FootprintStore(site.folder / "footprints")
        if measured is not None:
            self.store.save(model, measured)
        options = fake_options(site.address)
        self.options = options
        terms = Terms(
            model=model, device=site.address, ledgers=site.ledger.parent, footprints=site.folder, park_after=park_after
        )
        ledger = site.open_ledger(patience=patience)
        self.admission = LedgerAdmission(terms, FakeDevice(options), ledger, self.store, model)
        self.admission.attach(self, self.has_work)
        self.memory = None
        self.cached = self.weights = 0
        self.is_ready = False
        self.dies = asyncio.Event()
        self.orders = []
        self.places = []
        self.work = 0
        self.broker_error = None

    async def __aenter__(self):
        self.running = asyncio.create_task(self.admission.run())
        self.keeping = asyncio.create_task(self.keep())
        return self

    async def __aexit__(self, kind, *_):
        for task in (self.keeping, self.running):
            task.cancel()
        done = await asyncio.gather(self.keeping, self.running, return_exceptions=True)
        await self.admission.close()
        if kind is None:
            for error in done:
                if not isinstance(error, asyncio.CancelledError):
                    raise error

    async def has_work(self):
        if self.broker_error is not None:
            raise self.broker_error
        return self.work > 0

    # --- the runner ---

    async def keep(self):
        while True:
            self.dies.clear()
            try:
                self.places.append(await self.admission.make_place())
                self.memory = SharedMemory(self.options.folder, self.options.capacity, frees_after=0.0)
                self.memory.join()
                measured = self.measured
                self.take(measured.full)
                self.weights, self.cached = measured.weights, 0
                await asyncio.sleep(self.load_seconds)
                self.admission.settle_in(measured, 1)
                self.is_ready = True
                await self.dies.wait()
            finally:
                self.is_ready = False
                if self.memory is not None:
                    self.memory.close()
                    self.memory = None
                self.admission.move_out()

    def take(self, nbytes):
        assert self.memory.take(nbytes), "out of memory"

    async def move(self, what):
        """As Mover.move: what is done to the memory is really done."""
        self.orders.append(what)
        await asyncio.sleep(0.001)
        if self.memory is None:
            return None
        self.memory.give(self.cached)
        self.cached = 0
        if what == "park":
            self.memory.give(self.weights - PARKED * MIB)
            self.weights = PARKED * MIB
        elif what == "wake":
            self.take(self.measured.weights - self.weights)
            self.weights = self.measured.weights
        await asyncio.sleep(0.001)
        return Moved(reserved=self.weights, seconds=0.001)

    async def retire(self):
        self.orders.append("retire")
        self.dies.set()
        await eventually(lambda: self.memory is None)

    # --- the consumer ---

    async def serve(self, count=1, *, polls=False):
        """Run so many messages, one after the other."""
        for _ in range(count):
            grant = await self.admission.acquire(1, polls=polls)
            await self.run(grant)

    async def run(self, grant):
        grant.shrink_to(1)
        try:
            need = max(one.nbytes for one in self.measured.batches[""].values())
            self.take(max(0, need - self.cached))
            self.cached = max(self.cached, need)
            assert self.weights + CONTEXT * MIB == self.measured.full, "it is parked"
            await asyncio.sleep(0.002)
        finally:
            grant.give_back(1)


@contextlib.asynccontextmanager
async def workers(*several):
    """All of them, at work."""
    async with contextlib.AsyncExitStack() as stack:
        for worker in several:
            await stack.enter_async_context(worker)
        yield several
