"""A runner as a process, on a device or none, and its consumer's end of the pipe."""

from __future__ import annotations

import asyncio
import contextlib
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

from dumbwaiter.devices.admission import Place
from dumbwaiter.devices.fake import FakeDevice
from dumbwaiter.devices.fake_memory import SharedMemory
from dumbwaiter.devices.opening import fake_options
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.policies.footprints import Footprint
from dumbwaiter.worker.pipe import Done, Found, FromRunner, Item, Move, Moved, Predict, Ready, ToRunner, split
from dumbwaiter.worker.runner_process import RunnerProcess

MIB = 2**20
CODE = """
import os, time
from dumbwaiter.devices import fake

MIB = 2**20

class Model:
    max_batch = 4
    sample_inputs = ["soup"]

    def __init__(self):
        self.weights = fake.hold(100 * MIB)

    def __call__(self, texts: list[str]) -> list[str]:
        if "break" in texts:
            fake.break_context()
        if "fork" in texts:
            if not os.fork():
                os.execvp("sleep", ["sleep", "30"])
        each = 400 if "large" in texts else 10
        with fake.use(len(texts) * each * MIB, 0.001):
            return [f"{len(texts)} {text}" for text in texts]

    def park(self):
        self.weights.park()

    def wake(self):
        self.weights.wake()
"""


class Desk:
    """The consumer's end of a runner's pipe."""

    def __init__(self, runner: RunnerProcess) -> None:
        self.runner = runner
        self.device: FakeDevice | None = None
        self.ready: Ready | None = None

    async def hear_ready(self) -> Footprint | None:
        assert isinstance(await self.receive(), Found)
        self.ready = await self.receive()
        assert isinstance(self.ready, Ready), self.ready
        return self.ready.footprint

    async def send(self, frame: ToRunner, *bodies: bytes) -> None:
        await self.runner.pipe.send(frame, bodies)

    async def predict(self, *texts: str, most: int | None = None, first: int = 0) -> None:
        items = [Item(slot, "text/plain", len(text), None, 0.0, alone=False) for slot, text in enumerate(texts, first)]
        await self.send(Predict(items, most), *(text.encode() for text in texts))

    async def receive(self) -> FromRunner:
        async with asyncio.timeout(20):
            return (await self.runner.pipe.receive())[0]

    async def outputs(self, count: int) -> list[tuple[Done, str]]:
        """So many outcomes: with the frame in which it came, its text or the code of its fault."""
        outcomes: list[tuple[Done, str]] = []
        while len(outcomes) < count:
            async with asyncio.timeout(20):
                done, bodies = await self.runner.pipe.receive()
            assert isinstance(done, Done), done
            pieces = split([result.nbytes for result in done.results], bodies)
            for result, piece in zip(done.results, pieces, strict=True):
                outcomes.append((done, result.fault.code if result.fault else bytes(piece).decode()))
        return outcomes

    async def done(self) -> Done:
        frame = await self.receive()
        assert isinstance(frame, Done), frame
        return frame

    async def move(self, what: str) -> Moved:
        await self.send(Move(what))
        moved = await self.receive()
        assert isinstance(moved, Moved), moved
        return moved


@contextlib.asynccontextmanager
async def spawned(folder: Path, code: str, place: Place | None) -> AsyncIterator[Desk]:
    """A runner in *place* that has not said anything yet."""
    (folder / "network.py").write_text(textwrap.dedent(code))
    runner = await RunnerProcess.start(ModelSpec(name="dish", target="network:Model", project=str(folder)), place)
    try:
        yield Desk(runner)
    finally:
        await runner.close()


@contextlib.asynccontextmanager
async def started(folder: Path, code: str = CODE, *, options: str = "", **place) -> AsyncIterator[Desk]:
    """A runner on a fake device of 1 GiB that is ready."""
    device = FakeDevice(fake_options(f"fake:1GiB?path={folder}/card{options}"))
    async with spawned(folder, code, Place(device=device.address, **place)) as desk:
        desk.device = device
        await desk.hear_ready()
        yield desk
    device.close()


def other_memory(desk: Desk, mib: int) -> SharedMemory:
    """Somebody else's memory on the device, so many MiB."""
    memory = SharedMemory(fake_options(desk.device.address).folder, desk.device.capacity, frees_after=0.0)
    memory.join()
    assert memory.take(mib * MIB)
    return memory
