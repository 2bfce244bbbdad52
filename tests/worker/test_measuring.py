"""What a model takes is measured while it is loaded: all of it where nobody else uses the device, else its weights."""

from __future__ import annotations

import pytest
from dishes import MIB, Dish, refuse

from dumbwaiter.devices import fake
from dumbwaiter.devices.contract import DeviceError
from dumbwaiter.devices.opening import open_device
from dumbwaiter.errors import ConfigError, ModelLoadError
from dumbwaiter.worker.device_memory import ContextDeadError
from dumbwaiter.worker.measuring import OpenedDevice


@pytest.fixture
def address(tmp_path):
    yield f"fake:1GiB?path={tmp_path}/card&context=50MiB"
    fake.close_here()


def measured(address, *, probes=True, **dish):
    opened = OpenedDevice(address, probes=probes)
    model = Dish(**dish)
    return opened.measure(model), model


def activations(found):
    return {size: one.nbytes // MIB for batches in found.footprint.batches.values() for size, one in batches.items()}


def test_alone_on_the_device_all_is_measured(address):
    found, model = measured(address, weights=100, each=10, max_batch=6)
    footprint = found.footprint
    assert (footprint.context, footprint.weights, footprint.parked) == (50 * MIB, 100 * MIB, 0)
    assert footprint.full == 150 * MIB
    assert footprint.load_seconds > 0.0
    assert footprint.park_seconds > 0.0
    assert footprint.wake_seconds > 0.0
    assert list(footprint.batches) == ["2^2"]
    assert activations(found) == {1: 10, 2: 20, 4: 40, 6: 60}
    assert [size for size, _ in found.timed] == [1, 2, 4, 6]
    assert model.weights.is_on_device, "it is awake"
    assert open_device(address).used() == 150 * MIB, "nothing is cached"


def test_beside_others_only_the_weights_are(address):
    found, model = measured(address, probes=False, weights=100)
    footprint = found.footprint
    assert (footprint.context, footprint.weights, footprint.parked) == (0, 100 * MIB, 0)
    assert (footprint.batches, footprint.park_seconds, footprint.wake_seconds) == ({}, 0.0, 0.0)
    assert footprint.load_seconds > 0.0
    assert model.sizes == []


def test_what_others_already_use_is_not_counted(address):
    other = open_device(address)
    fake.open_here(fake_options_of(address)).open_context()
    fake.hold(30 * MIB)
    assert other.used() == 80 * MIB
    fake.close_here()
    found, _ = measured(address, weights=100)
    assert (found.footprint.context, found.footprint.weights) == (50 * MIB, 100 * MIB)
    other.close()


def fake_options_of(address):
    from dumbwaiter.devices.opening import fake_options

    return fake_options(address)


def test_each_size_is_run_twice_with_inputs_of_its_own(address):
    _, model = measured(address, max_batch=2)
    assert model.sizes == [1, 1, 2, 2]
    assert len({id(batch) for batch in model.batches}) == 4


def test_the_first_call_of_a_size_counts_for_memory_and_not_for_time(address):
    compiled = []

    def compiles(inputs):
        if not compiled:
            compiled.append(inputs)
            with fake.use(70 * MIB, 0.2):
                pass

    found, _ = measured(address, each=10, max_batch=2, before=compiles)
    assert activations(found) == {1: 70, 2: 20}, "and only for that of its own size"
    assert all(seconds < 0.2 for _, seconds in found.timed)


def test_what_the_first_batches_leave_behind_counts_to_the_weights(address):
    workspaces = []

    def library(inputs):
        if not workspaces:
            workspaces.append(fake.hold(8 * MIB))

    found, _ = measured(address, weights=100, before=library)
    assert found.footprint.weights == 108 * MIB


def test_sizes_that_do_not_fit_are_not_tried_further(address):
    found, model = measured(address, weights=100, each=300, max_batch=8)
    assert model.sizes == [1, 1, 2, 2, 4]
    assert [size for size, _ in found.timed] == [1, 2]
    sizes = activations(found)
    assert (sizes[1], sizes[2]) == (300, 600)
    assert sizes[4] > 600, "so much is known of it"
    assert found.memory.take_news() == ([], False), "nobody was refused anything"


def test_a_model_without_samples_is_measured_later(address):
    found, model = measured(address, samples=False)
    assert (found.footprint.batches, found.timed, model.sizes) == ({}, [], [])
    assert found.footprint.context == 50 * MIB


def test_samples_that_the_model_does_not_take_are_no_reason_not_to_serve(address, caplog):
    found, model = measured(address, max_batch=4, before=refuse)
    assert found.footprint.batches == {}
    assert "no batch of 1 can be measured yet: OSError: not today" in caplog.text
    assert model.weights.is_on_device


def test_a_failure_in_one_place_of_an_output_is_one_too(address, caplog):
    opened = OpenedDevice(address, probes=True)
    model = Dish()
    model.predict = lambda inputs, on_chunk=None: [ValueError("not this place")] * len(inputs)
    assert opened.measure(model).footprint.batches == {}
    assert "not this place" in caplog.text


def test_a_device_that_fails_ends_it(address):
    with pytest.raises(ContextDeadError):
        measured(address, before=lambda inputs: fake.break_context())


def test_measuring_ends_after_a_while(address, monkeypatch):
    monkeypatch.setattr("dumbwaiter.worker.measuring._LONGEST_LADDER", 0.0)
    found, _ = measured(address, max_batch=8)
    assert [size for size, _ in found.timed] == [1]


def test_a_model_that_cannot_be_parked_says_so(address):
    for probes in (False, True):
        found, _ = measured(address, probes=probes, can_park=False)
        assert found.footprint.parked is None
        fake.close_here()


def test_what_of_a_model_stays_on_the_device_is_measured(address):
    opened = OpenedDevice(address, probes=True)
    model = Dish(weights=100)
    stays = fake.hold(20 * MIB)
    assert opened.measure(model).footprint.parked == 20 * MIB
    stays.free()


def test_a_model_that_fails_to_park_cannot_be_parked(address):
    opened = OpenedDevice(address, probes=True)
    model = Dish()
    model.park = refuse
    assert opened.measure(model).footprint.parked is None


def test_a_model_that_does_not_wake_cannot_be_loaded(address):
    opened = OpenedDevice(address, probes=True)
    model = Dish()
    model.wake = refuse
    with pytest.raises(ModelLoadError, match="cannot be woken"):
        opened.measure(model)


def test_a_device_without_room_for_a_context_is_a_device_error(tmp_path):
    address = f"fake:1GiB?path={tmp_path}/card&context=2GiB"
    with pytest.raises(DeviceError, match=r"cannot use fake:.* out of memory"):
        OpenedDevice(address, probes=False)
    fake.close_here()


def test_an_address_that_is_none_is_a_config_error():
    with pytest.raises(ConfigError, match="cuda:0"):
        OpenedDevice("cuda:0", probes=False)


def test_on_the_host_the_process_itself_is_the_footprint(tmp_path):
    """Nothing is faked there: the batches allocate, and the kernel tells what they took."""
    fake.open_here(fake_options_of(f"fake:1GiB?path={tmp_path}/card"))
    opened = OpenedDevice("host", probes=True)
    model = Dish(max_batch=2, can_park=False, before=lambda inputs: bytearray(len(inputs) * 60 * MIB))
    found = opened.measure(model)
    assert found.footprint.weights > 20 * MIB
    taken = activations(found)
    assert 50 <= taken[1] <= 80
    assert 110 <= taken[2] <= 150
    fake.close_here()
