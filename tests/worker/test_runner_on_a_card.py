"""A runner on a real card: a torch model of a user's is measured, moved and halved there, and a dead context ends it.

Nobody else may use the card meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from runner_desk import MIB, spawned

from dumbwaiter.devices.admission import Place
from dumbwaiter.devices.contract import DeviceError
from dumbwaiter.devices.opening import open_device
from dumbwaiter.errors import MissingExtraError
from dumbwaiter.testing import eventually
from dumbwaiter.worker.pipe import Returned

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]
GIB = 1 << 30
SLOW_START = 60.0
CODE = """
import torch

MIB = 2**20

class Model:
    max_batch = 4
    sample_inputs = ["soup"]

    def __init__(self):
        torch.manual_seed(1)
        layers = [torch.nn.Linear(2048, 2048, bias=False, device="cuda") for _ in range(16)]
        self.network = torch.nn.Sequential(*layers)

    def __call__(self, texts: list[str]) -> list[str]:
        if "break" in texts:
            torch.zeros(4, device="cuda")[torch.tensor([1 << 20], device="cuda")].tolist()
        each = torch.cuda.mem_get_info()[0] * 2 // 5 if "large" in texts else 128 * MIB
        activation = torch.ones(len(texts) * each, dtype=torch.uint8, device="cuda")
        with torch.inference_mode():
            state = self.network(torch.linspace(-1, 1, 2048, device="cuda").expand(1, 2048))
        number = int(state.view(torch.int32).to(torch.int64).sum())
        return [f"{len(texts)} {text} {number} {int(activation[-1])}" for text in texts]
"""


@pytest.fixture(scope="module")
def device():
    try:
        device = open_device("cuda:0")
    except (DeviceError, MissingExtraError) as error:
        pytest.skip(f"RULE NOT CHECKED: there is no CUDA card to run on: {error}")
    with contextlib.closing(device):
        yield device


@contextlib.asynccontextmanager
async def started(folder: Path, device):
    before = device.used()
    place = Place(device=device.address, environment=device.environment(), probes=True)
    async with spawned(folder, CODE, place) as desk, asyncio.timeout(SLOW_START):
        desk.first = await desk.runner.pipe.receive()
        desk.ready, _ = await desk.runner.pipe.receive()
        desk.before = before
        yield desk
    await eventually(lambda: abs(device.used() - before) < 64 * MIB, within=10.0, what="all memory is back")


async def test_it_measures_what_the_card_itself_shows_and_moves_it(tmp_path: Path, device) -> None:
    async with started(tmp_path, device) as desk:
        footprint = desk.ready.footprint
        assert 100 * MIB < footprint.context < 2 * GIB
        assert 256 * MIB <= footprint.weights < 256 * MIB + 80 * MIB
        batches = footprint.batches["2^2"]
        assert list(batches) == [1, 2, 4]
        for size, one in batches.items():
            assert size * 128 * MIB <= one.nbytes < size * 128 * MIB + 80 * MIB
        held = device.used() - desk.before
        # Kernels that are loaded when they are first used are in nobody's account, but the card's.
        assert footprint.full <= held < footprint.full + 512 * MIB
        await desk.predict("soup")
        (_, first), *_ = await desk.outputs(1)
        parked = await desk.move("park")
        assert parked.is_done
        assert held - (device.used() - desk.before) >= 250 * MIB, "others can have it"
        assert footprint.parked == parked.reserved < 80 * MIB
        assert (await desk.move("wake")).is_done
        assert abs(device.used() - desk.before - held) < 64 * MIB
        await desk.move("park")
        await desk.predict("soup")
        assert [text for _, text in await desk.outputs(1)] == [first], "a request wakes it, and it answers the same"


async def test_a_batch_without_room_is_halved_and_the_other_half_comes_back(tmp_path: Path, device) -> None:
    async with started(tmp_path, device) as desk:
        await desk.predict("large", "b", "c", "d")
        done = await desk.done()
        assert [(result.slot, result.fault) for result in done.results] == [(0, None), (1, None)]
        refused, ran = done.observations
        assert (refused.size, refused.is_out_of_memory) == (4, True)
        assert (ran.size, ran.is_out_of_memory) == (2, False)
        assert ran.nbytes > device.capacity // 2
        assert await desk.receive() == Returned([2, 3])
        assert (await desk.move("empty")).reserved < 400 * MIB


async def test_a_dead_context_ends_it_at_once_and_who_did_not_run_comes_back(tmp_path: Path, device) -> None:
    async with started(tmp_path, device) as desk:
        await desk.predict("break", "b", "c", most=2)
        assert await desk.receive() == Returned([2])
        cause = await desk.runner.died()
        assert cause.code == "device-error"
        assert desk.runner.recorder.busy([0, 1, 2]) == [0, 1]
