"""A fake device: several processes, one capacity."""

from __future__ import annotations

import os
import random
from types import SimpleNamespace

import pytest
import torch
from fake_process import FakeProcess
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dumbwaiter.devices import fake
from dumbwaiter.devices.contract import DeviceError
from dumbwaiter.devices.fake_memory import Memory
from dumbwaiter.devices.opening import open_allocator, open_device
from dumbwaiter.errors import ConfigError
from dumbwaiter.testing import eventually
from dumbwaiter.worker.execution import is_out_of_memory

GIB = 2**30


@pytest.fixture
def opened(tmp_path):
    """The device of these options, seen from outside; all that this process opened is closed at the end."""
    devices = []

    def open_with(options="", capacity="8GiB"):
        devices.append(open_device(f"fake:{capacity}?path={tmp_path}/card{options}"))
        return devices[-1]

    yield open_with
    fake.close_here()
    for device in devices:
        device.close()


# --- what it counts ---------------------------------------------------------


class Counting(RuleBasedStateMachine):
    """Whatever processes take, give, leak and die: what is in use is what they have, and no more than there is."""

    def __init__(self):
        super().__init__()
        self.memory = Memory(100)
        self.now = 0.0
        self.dead = set()

    def living(self):
        return sorted(set(self.memory.shares) - self.dead)

    @rule()
    def join(self):
        self.memory.join()

    @precondition(lambda self: self.living())
    @rule(data=st.data(), nbytes=st.integers(0, 120))
    def take(self, data, nbytes):
        used = self.memory.used
        taken = self.memory.take(data.draw(st.sampled_from(self.living())), nbytes)
        assert taken == (used + nbytes <= 100)
        assert self.memory.used == used + taken * nbytes

    @precondition(lambda self: self.living())
    @rule(data=st.data(), is_lost=st.booleans())
    def give(self, data, is_lost):
        name = data.draw(st.sampled_from(self.living()))
        nbytes = data.draw(st.integers(0, self.memory.shares[name].nbytes))
        used = self.memory.used
        (self.memory.leak if is_lost else self.memory.give)(name, nbytes)
        assert self.memory.used == used - (0 if is_lost else nbytes)

    @precondition(lambda self: self.living())
    @rule(data=st.data())
    def die(self, data):
        self.dead.add(data.draw(st.sampled_from(self.living())))

    @rule(passed=st.floats(0, 10))
    def look(self, passed):
        self.now += passed
        self.memory.bury(self.dead & set(self.memory.shares), self.now, 5.0)

    @invariant()
    def nothing_is_over_committed(self):
        assert 0 <= self.memory.used <= self.memory.most_used <= 100
        assert all(share.nbytes >= 0 for share in self.memory.shares.values())


TestCounting = Counting.TestCase


@given(frees_after=st.floats(0.001, 100), looks=st.lists(st.floats(0, 100), max_size=5))
def test_a_dead_processs_memory_comes_back_after_the_delay_and_not_before(frees_after, looks):
    memory = Memory(10)
    name = memory.join()
    memory.take(name, 7)
    memory.bury([name], 1.0, frees_after)
    for moment in sorted(looks):
        is_gone = name not in memory.shares
        memory.bury([] if is_gone else [name], 1.0 + moment, frees_after)
        assert memory.used == (0 if 1.0 + moment >= 1.0 + frees_after else 7)


def test_memory_that_never_comes_back_is_leaked():
    memory = Memory(10)
    name = memory.join()
    memory.take(name, 7)
    assert memory.bury([name], 0.0, float("inf"))
    assert (memory.shares, memory.leaked, memory.used) == ({}, 7, 7)


# --- one process ------------------------------------------------------------


def test_weights_are_on_the_device_until_they_are_freed(opened):
    device = opened("&cache=false")
    open_allocator(device.address)
    weights = fake.hold(3 * GIB)
    with fake.use(GIB):
        assert device.used() == 4 * GIB
    assert device.used() == 3 * GIB
    weights.free()
    weights.free()
    assert device.used() == 0
    assert device.record().most_used == 4 * GIB


def test_each_process_pays_for_its_context_first(opened):
    device = opened("&context=1GiB")
    allocator = open_allocator(device.address)
    assert device.used() == 0
    allocator.open_context()
    allocator.open_context()
    assert device.used() == GIB
    assert allocator.reserved() == 0


def test_freed_memory_is_cached_and_used_again_until_the_cache_is_emptied(opened):
    device = opened()
    allocator = open_allocator(device.address)
    with fake.use(3 * GIB):
        pass
    assert (device.used(), allocator.reserved()) == (3 * GIB, 3 * GIB)
    with fake.use(2 * GIB):
        assert device.used() == 3 * GIB
    with fake.use(5 * GIB):
        assert device.used() == 5 * GIB
    allocator.empty_cache()
    assert (device.used(), allocator.reserved()) == (0, 0)


def test_what_is_cached_is_no_room_for_others_and_is_given_back_when_its_owner_is_out_of_memory(opened):
    device = opened()
    open_allocator(device.address)
    with FakeProcess(device.address) as other, fake.use(GIB):
        with fake.use(3 * GIB):
            pass
        assert other.do("hold", 5 * GIB)[0] == "dumbwaiter.devices.fake.OutOfMemoryError"
        assert other.do("hold", 3 * GIB) is None
        with fake.use(4 * GIB):
            assert device.used() == 8 * GIB
        assert device.record().refused == 1
        with pytest.raises(torch.OutOfMemoryError):
            fake.hold(5 * GIB)
        assert device.used() == 4 * GIB
        assert device.record().refused == 2


def test_the_peak_is_of_what_was_reserved(opened):
    allocator = open_allocator(opened().address)
    with fake.use(3 * GIB):
        pass
    allocator.empty_cache()
    assert allocator.peak() == 3 * GIB
    allocator.reset_peak()
    assert allocator.peak() == 0


def test_what_does_not_fit_raises_the_frameworks_own_error_and_is_counted(opened):
    device = opened()
    allocator = open_allocator(device.address)
    weights = fake.hold(6 * GIB)
    with pytest.raises(
        torch.OutOfMemoryError, match=r"Tried to allocate 3.00 GiB. GPU 0 has a total capacity of 8.00"
    ) as e:
        fake.hold(3 * GIB)
    assert "of which 2.00 GiB is free. Of the allocated memory 6.00 GiB is allocated by PyTorch" in str(e.value)
    assert allocator.is_out_of_memory(e.value)
    assert is_out_of_memory(e.value)
    assert not allocator.is_sticky(e.value)
    assert device.record().refused == 1
    assert device.used() == 6 * GIB
    weights.free()


def test_parked_weights_leave_the_device_and_come_back(opened):
    device = opened("&load=100GB&park=100GB&wake=100GB")
    allocator = open_allocator(device.address)
    weights = fake.hold(GIB)
    weights.park()
    weights.park()
    assert not weights.is_on_device
    allocator.empty_cache()
    assert device.used() == 0
    weights.wake()
    weights.wake()
    assert device.used() == GIB


def test_weights_that_cannot_be_woken_stay_parked(opened):
    device = opened("&cache=false")
    open_allocator(device.address)
    weights = fake.hold(3 * GIB)
    weights.park()
    with FakeProcess(device.address) as other:
        other.do("hold", 6 * GIB)
        with pytest.raises(torch.OutOfMemoryError):
            weights.wake()
    assert not weights.is_on_device


def test_a_copy_takes_as_long_as_its_rate_says(opened, monkeypatch):
    slept = []
    monkeypatch.setattr("dumbwaiter.devices.fake.time", SimpleNamespace(sleep=slept.append))
    open_allocator(opened("&load=1GiB&park=2GiB&wake=4GiB").address)
    weights = fake.hold(2 * GIB)
    weights.park()
    weights.wake()
    with fake.use(GIB, 0.25):
        pass
    assert slept == [2.0, 1.0, 0.5, 0.25]


def test_after_a_sticky_error_nothing_succeeds_in_that_process(opened):
    allocator = open_allocator(opened().address)
    weights = fake.hold(GIB)
    with pytest.raises(torch.AcceleratorError, match="device-side assert triggered") as broken:
        fake.break_context("device-side assert triggered")
    assert allocator.is_sticky(broken.value)
    for act in (
        lambda: fake.hold(1),
        weights.park,
        allocator.synchronize,
        allocator.empty_cache,
        allocator.open_context,
    ):
        with pytest.raises(torch.AcceleratorError, match="device-side assert triggered"):
            act()


# --- several processes ------------------------------------------------------


def test_the_articles_two_models_do_not_fit_at_once(opened):
    device = opened()
    with FakeProcess(device.address) as small, FakeProcess(device.address) as big:
        assert small.do("hold", 3 * GIB) is None
        kind, text = big.do("hold", 6 * GIB)
        assert kind == "dumbwaiter.devices.fake.OutOfMemoryError"
        assert "CUDA out of memory. Tried to allocate 6.00 GiB" in text
        small.do("free")
        small.do("empty")
        assert big.do("hold", 6 * GIB) is None
        assert device.record().refused == 1


def test_a_process_with_torch_gets_torchs_own_error(opened):
    with FakeProcess(opened().address, "torch") as process:
        assert process.do("hold", 9 * GIB)[0] == "torch.OutOfMemoryError"
        assert process.do("break")[0] == "torch.AcceleratorError"
        assert process.do("synchronize")[0] == "torch.AcceleratorError"


@pytest.mark.anyio
async def test_a_killed_processs_memory_comes_back_only_when_the_driver_has_cleared_up(opened):
    device = opened("&frees_after=300ms")
    with FakeProcess(device.address) as process:
        process.do("hold", 5 * GIB)
        process.kill()
        assert device.used() == 5 * GIB
        await eventually(lambda: device.used() == 0, within=10.0, what="the memory of the dead process")
        assert device.record().shares == {}


def test_what_was_leaked_is_gone_for_good(opened):
    device = opened()
    with FakeProcess(device.address) as process:
        process.do("hold", 2 * GIB)
        assert process.do("leak", GIB) is None
        assert process.do("reserved") == 2 * GIB
    assert device.used() == GIB
    assert device.record().leaked == GIB


def test_a_driver_that_never_clears_up_leaks_all_that_a_killed_process_had(opened):
    device = opened("&frees_after=never")
    with FakeProcess(device.address) as process:
        process.do("hold", 5 * GIB)
    assert (device.used(), device.record().leaked) == (5 * GIB, 5 * GIB)


def test_a_forked_child_neither_uses_the_device_nor_keeps_its_parents_memory(opened):
    device = opened()
    with FakeProcess(device.address) as process:
        process.do("hold", 2 * GIB)
        process.tell("fork")
        answers = dict([process.read(), process.read()])
        try:
            assert answers["dumbwaiter.devices.contract.DeviceError"].endswith(
                "was closed, or opened before a fork; open it anew"
            )
            process.process.kill()
            process.process.wait()
            assert device.used() == 0
        finally:
            os.kill(answers["pid"], 9)


def test_processes_killed_at_any_moment_leave_no_torn_memory_and_keep_none(opened, tmp_path):
    device = opened("&cache=false", capacity="1000")
    random.seed(5)
    for _ in range(20):
        with FakeProcess(device.address) as one, FakeProcess(device.address) as other:
            for process in (one, other):
                for _ in range(random.randrange(30)):
                    process.tell("use", random.randrange(1, 600))
                process.tell("hold", random.randrange(1, 600))
            assert device.used() <= 1000
            one.process.kill()
            assert device.used() <= 1000
        assert device.used() == 0
        assert device.record().shares == {}
    assert sorted(path.name for path in (tmp_path / "card").iterdir()) == ["lock", "memory.json"]


# --- what is refused --------------------------------------------------------


def test_a_device_of_another_capacity_is_refused(opened):
    opened()
    with pytest.raises(ConfigError, match="has 8589934592 bytes, not 4294967296; name that capacity, or remove"):
        opened(capacity="4GiB")


def test_a_file_that_is_no_fake_devices_is_refused_and_kept(opened, tmp_path):
    (tmp_path / "card").mkdir()
    (tmp_path / "card/memory.json").write_text("precious")
    with pytest.raises(DeviceError, match=r"is no fake device's memory: .*; choose another path"):
        opened()
    assert (tmp_path / "card/memory.json").read_text() == "precious"


def test_a_place_where_no_folder_can_be_is_refused(opened, tmp_path):
    (tmp_path / "card").write_text("a file")
    with pytest.raises(DeviceError, match=r"cannot keep a fake device in .*/card: File exists; choose another path"):
        opened()


def test_a_device_whose_folder_was_removed_is_an_error_and_not_an_empty_one(opened, tmp_path):
    device = opened()
    (tmp_path / "card/memory.json").unlink()
    with pytest.raises(DeviceError, match="is gone; was the folder removed"):
        device.used()


def test_a_closed_device_is_an_error(opened):
    device = opened()
    device.close()
    device.close()
    with pytest.raises(DeviceError, match="was closed"):
        device.used()


def test_a_process_uses_one_fake_device(opened, tmp_path):
    allocator = open_allocator(opened().address)
    assert open_allocator(opened().address) is allocator
    with pytest.raises(
        DeviceError, match=r"uses fake:8589934592.*card already, and cannot use fake:4096.*other as well"
    ):
        open_allocator(f"fake:4096?path={tmp_path}/other")


def test_a_model_on_no_fake_device_is_told_where_to_start():
    with pytest.raises(DeviceError, match="no fake device was opened in this process; start its worker on one"):
        fake.hold(1)
