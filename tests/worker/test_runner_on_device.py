"""A runner that shares a device: it measures, moves, hands back what found no room, and exits once that is dead."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest
from runner_desk import CODE, MIB, other_memory, spawned, started

from dumbwaiter.devices.admission import Place
from dumbwaiter.devices.ledger import Ledger
from dumbwaiter.policies.admission import Seat
from dumbwaiter.testing import eventually
from dumbwaiter.worker.pipe import Cancel, Drain, Found, Item, LoadFailed, Moved, Predict, Progress, Returned
from dumbwaiter.worker.recorder import State

pytestmark = pytest.mark.anyio

# --- loading ----------------------------------------------------------------


async def test_alone_on_the_device_it_says_what_the_model_takes(tmp_path: Path) -> None:
    async with started(tmp_path, probes=True, options="&context=50MiB") as desk:
        footprint = desk.ready.footprint
        assert (footprint.context, footprint.weights, footprint.parked) == (50 * MIB, 100 * MIB, 0)
        batches = footprint.batches["2^2"]
        assert {size: one.nbytes // MIB for size, one in batches.items()} == {1: 10, 2: 20, 4: 40}
        assert 0.0 < footprint.load_seconds < desk.ready.load_seconds
        assert desk.device.used() == 150 * MIB
        await desk.predict("")
        done = await desk.done()
        assert [result.fault.code for result in done.results] == ["bad-input"]
        assert done.seconds_each > 0.0, "before any batch was run, batching knows how long they take"


async def test_beside_others_it_says_what_is_known_without_a_probe(tmp_path: Path) -> None:
    async with started(tmp_path) as desk:
        footprint = desk.ready.footprint
        assert (footprint.context, footprint.weights, footprint.parked) == (0, 100 * MIB, 0)
        assert footprint.batches == {}


async def test_without_a_device_there_is_no_footprint_and_nothing_to_move(tmp_path: Path) -> None:
    code = CODE.replace("fake.hold(100 * MIB)", "None").replace("with fake", "if 1: #")
    async with spawned(tmp_path, code, None) as desk:
        assert await desk.hear_ready() is None
        for what in ("empty", "park", "wake"):
            assert await desk.move(what) == Moved(reserved=0, seconds=0.0, is_done=False)
        await desk.predict("soup")
        done = await desk.done()
        assert (len(done.results), done.observations, done.out_of_memory) == (1, [], False)


async def test_a_device_that_cannot_be_used_is_a_failure_to_load(tmp_path: Path) -> None:
    place = Place(device="cuda:GPU-1", environment={"CUDA_VISIBLE_DEVICES": "GPU-2"})
    async with spawned(tmp_path, CODE, place) as desk:
        failed = await desk.receive()
        assert isinstance(failed, LoadFailed)
        assert failed.message == "this process was to use GPU-1 alone, but has CUDA_VISIBLE_DEVICES=GPU-2"
        assert "exited with code 1" in (await desk.runner.died()).message


async def test_a_model_that_finds_no_room_is_a_failure_to_load(tmp_path: Path) -> None:
    place = Place(device=f"fake:1GiB?path={tmp_path}/card", probes=True)
    async with spawned(tmp_path, CODE.replace("hold(100", "hold(2000"), place) as desk:
        assert isinstance(await desk.receive(), Found)
        failed = await desk.receive()
        assert isinstance(failed, LoadFailed)
        assert "out of memory" in failed.message


# --- its seat ---------------------------------------------------------------


async def test_it_holds_its_places_seat_until_its_end_and_its_children_do_not(tmp_path: Path) -> None:
    opening = {"device": "card", "capacity": 2**30, "record": Seat}
    ledger = Ledger.open(tmp_path / "ledger", **opening)
    with ledger.turn() as turn:
        place = turn.take_seat(Seat(model="dish"))
    looking = Ledger.open(tmp_path / "ledger", **opening)

    def standing() -> tuple[list[int], list[int]]:
        with looking.turn() as turn:
            return [number for number, _ in turn.living], [number for number, _ in turn.orphaned]

    async with started(tmp_path, seat_fd=place.fileno()) as desk:
        await desk.predict("fork")
        await desk.done()
        (child,) = psutil.Process(desk.runner.pid).children()
        ledger.close()
        assert standing() == ([place.place], []), "whoever started it may go"
        psutil.Process(desk.runner.pid).kill()
        await eventually(lambda: standing() == ([], [place.place]), within=2.0)
        assert child.is_running()
        child.kill()
    looking.close()


async def test_its_places_environment_is_its_own(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    async with started(tmp_path, environment={"CUDA_VISIBLE_DEVICES": "GPU-1"}) as desk:
        assert psutil.Process(desk.runner.pid).environ()["CUDA_VISIBLE_DEVICES"] == "GPU-1"


# --- batches ----------------------------------------------------------------


async def test_it_says_what_its_batches_took(tmp_path: Path) -> None:
    async with started(tmp_path) as desk:
        await desk.predict("soup", "pie")
        done = await desk.done()
        (found,) = done.observations
        assert (found.bucket, found.size, found.nbytes, found.is_exact) == ("2^2", 2, 20 * MIB, True)
        assert found.seconds > 0.0
        assert not done.out_of_memory
        await desk.predict("pie", "soup")
        assert (await desk.done()).observations == [], "that is known"


async def test_it_runs_no_more_at_once_than_it_may_and_still_aims_at_what_is_worth_it(tmp_path: Path) -> None:
    async with started(tmp_path) as desk:
        await desk.predict(*"abcd", most=2)
        outcomes = await desk.outputs(4)
        assert [text for _, text in outcomes] == ["2 a", "2 b", "2 c", "2 d"]
        assert {done.target for done, _ in outcomes} == {4}
        await desk.predict(*"abcd")
        assert [text for _, text in await desk.outputs(4)] == ["4 a", "4 b", "4 c", "4 d"]


async def test_a_batch_that_is_cancelled_there_ends_and_says_nothing_of_what_it_took(tmp_path: Path) -> None:
    code = CODE.replace("each = 400", "time.sleep(1000 if 'slow' in texts else 0)\n        each = 400")
    async with started(tmp_path, code) as desk:
        await desk.send(Predict([Item(0, "text/plain", 4, None, 0.0, alone=False, reports=True)]), b"slow")
        progress = await desk.receive()
        assert isinstance(progress, Progress)
        await desk.send(Cancel([0]))
        done = await desk.done()
        assert (len(done.results), done.observations) == (1, [])
        await desk.predict("soup")
        assert [text for _, text in await desk.outputs(1)] == ["1 soup"]


# --- moving -----------------------------------------------------------------


async def test_its_memory_is_moved_when_that_is_asked(tmp_path: Path) -> None:
    async with started(tmp_path) as desk:
        await desk.predict(*"abcd")
        await desk.done()
        assert desk.device.used() == 140 * MIB, "a cache is kept"
        emptied = await desk.move("empty")
        assert (emptied.reserved, emptied.is_done, desk.device.used()) == (100 * MIB, True, 100 * MIB)
        parked = await desk.move("park")
        assert (parked.reserved, parked.is_done, desk.device.used()) == (0, True, 0)
        woken = await desk.move("wake")
        assert (woken.reserved, woken.is_done, desk.device.used()) == (100 * MIB, True, 100 * MIB)
        assert woken.seconds > 0.0


async def test_an_input_wakes_a_parked_model_and_its_batch_is_exact(tmp_path: Path) -> None:
    async with started(tmp_path) as desk:
        await desk.predict(*"abcd")
        await desk.done()
        await desk.move("park")
        await desk.predict("soup")
        (found,) = (await desk.done()).observations
        assert (found.nbytes, found.is_exact) == (10 * MIB, True)


async def test_a_model_without_weights_on_the_device_says_that_it_cannot_be_parked(tmp_path: Path) -> None:
    code = CODE.replace("def park", "def keep").replace("def wake", "def stay")
    async with started(tmp_path, code) as desk:
        assert desk.ready.footprint.parked is None
        parked = await desk.move("park")
        assert (parked.is_done, parked.reserved) == (False, 100 * MIB)


async def test_a_parked_one_can_be_drained(tmp_path: Path) -> None:
    async with started(tmp_path) as desk:
        await desk.move("park")
        await desk.send(Drain())
        await desk.predict("soup", first=5)
        assert await desk.receive() == Returned([5])
        assert desk.device.used() == 0
        desk.runner.pipe.close()
        async with asyncio.timeout(20):
            assert (await desk.runner.died()).message == "the runner exited with code 0"


async def test_inputs_for_which_it_finds_no_room_to_wake_come_back(tmp_path: Path) -> None:
    async with started(tmp_path) as desk:
        await desk.move("park")
        others = other_memory(desk, 1000)
        assert not (await desk.move("wake")).is_done
        await desk.predict("soup", "pie", first=3)
        done = await desk.done()
        assert (done.results, done.out_of_memory, done.observations) == ([], True, [])
        assert await desk.receive() == Returned([3, 4])
        others.give(1000 * MIB)
        await desk.predict("soup")
        assert [text for _, text in await desk.outputs(1)] == ["1 soup"]


async def test_a_model_that_fails_to_wake_ends_and_its_inputs_are_not_blamed(tmp_path: Path) -> None:
    code = CODE.replace("self.weights.wake()", "raise OSError('the host memory is gone')")
    async with started(tmp_path, code) as desk:
        assert (await desk.move("park")).is_done
        await desk.predict("soup", "pie")
        assert await desk.receive() == Returned([0, 1])
        async with asyncio.timeout(20):
            assert (await desk.runner.died()).message == "the runner exited with code 1"


# --- what goes wrong --------------------------------------------------------


async def test_a_batch_without_room_is_halved_and_the_other_half_comes_back(tmp_path: Path) -> None:
    async with started(tmp_path) as desk:
        await desk.predict("large", "b", "c", "d")
        done = await desk.done()
        assert [(result.slot, result.fault) for result in done.results] == [(0, None), (1, None)]
        assert done.out_of_memory
        refused, ran = done.observations
        assert (refused.size, refused.is_out_of_memory) == (4, True)
        assert (ran.size, ran.nbytes, ran.is_exact) == (2, 800 * MIB, True)
        assert await desk.receive() == Returned([2, 3])
        assert desk.device.record().refused == 1
        assert [desk.runner.recorder.read(slot)[0] for slot in range(4)] == [State.IDLE] * 4


async def test_an_input_without_room_even_alone_fails_for_the_moment(tmp_path: Path) -> None:
    code = CODE.replace("each = 400", "each = 2000")
    async with started(tmp_path, code) as desk:
        await desk.predict("large", "b")
        done = await desk.done()
        (result,) = done.results
        assert (result.slot, result.fault.kind.value, result.fault.code) == (0, "transient", "out-of-memory")
        assert "__call__" in result.fault.detail
        assert [(one.size, one.is_out_of_memory) for one in done.observations] == [(2, True), (1, True)]
        assert done.out_of_memory
        assert await desk.receive() == Returned([1])
        assert desk.device.used() == 100 * MIB


async def test_a_dead_device_ends_it_at_once_and_who_did_not_run_comes_back(tmp_path: Path) -> None:
    async with started(tmp_path) as desk:
        await desk.predict("break", "b", "c", most=2)
        assert await desk.receive() == Returned([2])
        async with asyncio.timeout(20):
            cause = await desk.runner.died()
        assert cause.code == "device-error"
        assert desk.runner.recorder.busy([0, 1, 2]) == [0, 1]


async def test_answers_that_it_still_held_are_sent_before_it_ends(tmp_path: Path) -> None:
    code = """
        from dumbwaiter.devices import fake

        class Model:
            def __call__(self, text: str) -> str:
                if text == "break":
                    fake.break_context()
                return text.upper()
    """
    async with started(tmp_path, code) as desk:
        await desk.predict(*(f"soup {number}" for number in range(30)), "break")
        outcomes = await desk.outputs(30)
        assert [text for _, text in outcomes] == [f"SOUP {number}" for number in range(30)]
        async with asyncio.timeout(20):
            assert (await desk.runner.died()).code == "device-error"
        assert desk.runner.recorder.busy(list(range(31))) == [30]


async def test_a_device_that_dies_while_an_output_is_encoded_ends_it(tmp_path: Path) -> None:
    code = """
        from PIL import Image

        from dumbwaiter.devices import fake

        class Model:
            def __call__(self, text: str) -> Image.Image:
                lazy = Image.new("L", (1, 1))
                lazy.save = lambda *_, **__: fake.break_context()
                return lazy
    """
    async with started(tmp_path, code) as desk, asyncio.timeout(20):
        await desk.predict("soup")
        assert (await desk.runner.died()).code == "device-error"
        assert desk.runner.recorder.busy([0]) == [0]


async def test_a_device_that_dies_while_it_is_measured_ends_it(tmp_path: Path) -> None:
    place = Place(device=f"fake:1GiB?path={tmp_path}/card", probes=True)
    async with spawned(tmp_path, CODE.replace('["soup"]', '["break"]'), place) as desk, asyncio.timeout(20):
        assert (await desk.runner.died()).code == "device-error"


async def test_on_the_host_the_process_is_measured_and_out_of_memory_is_that_of_the_host(tmp_path: Path) -> None:
    code = """
        class Model:
            max_batch = 4

            def __call__(self, texts: list[str]) -> list[str]:
                if len(texts) > 2:
                    raise MemoryError
                activation = b"x" * (40 * 2**20 * len(texts))
                return texts
    """
    async with spawned(tmp_path, code, Place(device="host", probes=True)) as desk:
        footprint = await desk.hear_ready()
        assert footprint.weights > 10 * MIB
        assert footprint.parked is None
        (batches,) = footprint.batches.values()
        assert 35 <= batches[1].nbytes / MIB < 70
        assert 75 <= batches[2].nbytes / MIB < 110
        await desk.predict(*"abcd")
        done = await desk.done()
        assert (len(done.results), done.out_of_memory) == (2, True)
        assert await desk.receive() == Returned([2, 3])
