"""What a model takes of a shared device: seen batch by batch, told when it tells anything, moved when that is asked."""

from __future__ import annotations

import pytest
from dishes import MIB, Dish, refuse

from dumbwaiter.devices import fake
from dumbwaiter.devices.opening import open_allocator, open_device
from dumbwaiter.worker.device_memory import ContextDeadError, DeviceMemory, OutOfRoomError
from dumbwaiter.worker.interrupting import Canceled


@pytest.fixture
def device(tmp_path):
    """A fake device of 1 GiB that this process has open."""
    device = open_device(f"fake:1GiB?path={tmp_path}/card")
    open_allocator(device.address).open_context()
    yield device
    fake.close_here()
    device.close()


@pytest.fixture
def opened(device):
    """The memory of such a dish, and the dish."""

    def open_with(**dish):
        model = Dish(**dish)
        return DeviceMemory(open_allocator(device.address), model), model

    return open_with


def call(memory, model, *inputs):
    memory.call(model.predict, list(inputs))
    return memory.take_news()[0]


# --- batches ----------------------------------------------------------------


def test_what_the_first_batch_takes_beyond_the_weights_is_exact(opened):
    memory, model = opened(weights=100, each=10)
    assert memory.reserved == 100 * MIB
    (found,) = call(memory, model, "soup", "pie")
    assert (found.bucket, found.size, found.nbytes, found.is_exact) == ("2^2", 2, 20 * MIB, True)
    assert not found.is_out_of_memory
    assert found.seconds >= 0.0


def test_what_is_cached_may_be_more_than_a_batch_needs_so_that_is_only_a_bound(opened):
    memory, model = opened(each=10)
    call(memory, model, *"abcd")
    (found,) = call(memory, model, "soup")
    assert (found.size, found.nbytes, found.is_exact) == (1, 40 * MIB, False)


def test_a_batch_that_tells_nothing_is_not_told(opened):
    memory, model = opened()
    call(memory, model, *"abcd")
    call(memory, model, "a")
    assert call(memory, model, *"abcd") == []
    assert call(memory, model, "a") == []
    assert [one.size for one in call(memory, model, "long", "long")] == [2], "its bucket is another"


def test_a_batch_that_needs_more_than_was_cached_is_told(opened):
    memory, model = opened(each=10)
    call(memory, model, "a")
    model.each = 30 * MIB
    (found,) = call(memory, model, "a")
    assert (found.nbytes, found.is_exact) == (30 * MIB, False)


def test_after_some_seconds_a_batch_is_told_whatever_it_took(opened):
    memory, model = opened()
    call(memory, model, "a")
    memory._told_at -= 10.0
    assert [one.size for one in call(memory, model, "a")] == [1]


def test_with_the_cache_emptied_it_is_exact_again(opened):
    memory, model = opened(each=10)
    call(memory, model, *"abcd")
    assert memory.move("empty").reserved == 100 * MIB
    (found,) = call(memory, model, "a")
    assert (found.nbytes, found.is_exact) == (10 * MIB, True)


def test_where_nothing_is_ever_cached_all_are_exact(tmp_path):
    allocator = open_allocator(f"fake:1GiB?path={tmp_path}/card&cache=false")
    model = Dish(each=10)
    memory = DeviceMemory(allocator, model)
    for size in (3, 1, 2):
        assert [(one.nbytes, one.is_exact) for one in call(memory, model, *"x" * size)] == [(size * 10 * MIB, True)]
    fake.close_here()


def test_what_stays_after_a_batch_counts_to_the_weights_once_the_cache_is_emptied(opened):
    memory, model = opened(weights=100, each=10)
    model._before = lambda inputs: fake.hold(5 * MIB)
    call(memory, model, "a")
    memory.move("empty")
    assert memory.reserved == 105 * MIB


def test_an_interrupted_batch_says_nothing(opened):
    memory, model = opened()
    memory.call(lambda inputs: [Canceled(), Canceled()], ["a", "b"])
    assert memory.take_news() == ([], False)
    assert call(memory, model, "a")[0].size == 1


# --- taken in advance -------------------------------------------------------


class InOnePiece(fake.FakeAllocator):
    """As if the device took long to give memory piece by piece."""

    is_plain = True

    def preparable(self):
        return self.peak() - 100 * MIB if self.is_plain else 0

    def prepare(self, nbytes):
        self.prepared = [*getattr(self, "prepared", []), nbytes // MIB]
        self.take(nbytes)
        self.give(nbytes)


@pytest.fixture
def allocator(device):
    allocator = open_allocator(device.address)
    allocator.__class__ = InOnePiece
    return allocator


def next_turn(memory, model, *inputs):
    memory.move("empty")
    return [(one.nbytes // MIB, one.is_exact) for one in call(memory, model, *inputs)]


def test_what_the_first_batch_of_a_turn_took_the_last_time_is_taken_at_once(allocator, opened):
    memory, model = opened(each=10)
    assert next_turn(memory, model, *"ab") == [(20, True)]
    assert next_turn(memory, model, *"ab") == [], "it may have needed less"
    assert call(memory, model, *"ab") == []
    assert allocator.prepared == [20], "what the first one took is cached now"
    assert next_turn(memory, model, *"a") == [(10, True)], "that size is new"
    call(memory, model, *"ab")
    assert allocator.prepared == [20]


def test_a_batch_that_needs_more_than_was_taken_in_advance_is_told(allocator, opened):
    memory, model = opened(each=10)
    next_turn(memory, model, *"ab")
    model.each = 30 * MIB
    assert next_turn(memory, model, *"ab") == [(60, True)]


def test_after_a_minute_a_batch_is_seen_as_it_is_and_may_turn_out_smaller(allocator, opened):
    memory, model = opened(each=10)
    next_turn(memory, model, *"ab")
    model.each = 5 * MIB
    for _ in range(2):
        assert next_turn(memory, model, *"ab") == []
        memory._preparable = {kind: (nbytes, at - 40.0) for kind, (nbytes, at) in memory._preparable.items()}
    assert next_turn(memory, model, *"ab") == [(10, True)]
    next_turn(memory, model, *"ab")
    assert allocator.prepared == [20, 20, 10]


def test_what_was_cached_for_something_else_is_not_taken_in_advance(allocator, opened):
    memory, model = opened(each=10)
    allocator.is_plain = False
    for _ in range(2):
        assert next_turn(memory, model, *"ab") == [(20, True)]
    assert not hasattr(allocator, "prepared")


def test_what_cannot_be_taken_at_once_may_still_fit_piece_by_piece(allocator, opened, device):
    memory, model = opened(weights=100, each=100)
    next_turn(memory, model, *"ab")
    model.each = 50 * MIB
    kept = fake.hold(device.capacity - device.used() + 200 * MIB - 150 * MIB)
    memory.move("empty")
    assert call(memory, model, *"ab")[0].nbytes == 100 * MIB
    assert allocator.prepared == [200]
    kept.free()


# --- what goes wrong --------------------------------------------------------


def failure(memory, model, *inputs):
    with pytest.raises(Exception) as raised:  # noqa: PT011 - whatever it raises
        memory.call(model.predict, list(inputs))
    return raised.value


def test_a_batch_without_room_leaves_nothing_behind_and_says_how_far_it_had_got(opened, device):
    memory, model = opened(each=300)
    kept = []
    model._before = lambda inputs: kept.append(fake.hold(200 * MIB)) or kept[0].free()
    error = failure(memory, model, *"abcd")
    assert memory.recover(error, 4)
    news, lacked_room = memory.take_news()
    assert lacked_room
    assert [(one.size, one.nbytes, one.is_out_of_memory) for one in news] == [(4, 200 * MIB, True)]
    assert device.used() == 100 * MIB
    assert memory.take_news() == ([], False)
    assert call(memory, model, "a")[0].is_exact


def test_an_error_that_was_raised_from_too_little_memory_is_that_too(opened):
    memory, model = opened()

    def wrapped(inputs):
        try:
            fake.hold(2000 * MIB)
        except RuntimeError as error:
            raise ValueError("the network failed") from error

    model._before = wrapped
    assert memory.recover(failure(memory, model, "a"), 1)


def test_what_the_frames_of_an_error_hold_is_let_go(opened):
    memory, model = opened()
    held = []

    class Tensor:
        def __del__(self):
            held.remove(self.name)

    def allocate(inputs):
        tensor = Tensor()
        tensor.name = "activation"
        held.append(tensor.name)
        fake.hold(2000 * MIB)

    model._before = allocate
    error = failure(memory, model, "a")
    assert held == ["activation"]
    memory.recover(error, 1)
    assert held == []
    assert error.__traceback__ is not None, "whoever is told of it shall see where it was"


def test_an_error_of_the_models_own_is_left_to_it(opened):
    memory, _ = opened()
    assert not memory.recover(ValueError("no soup today"), 1)
    assert memory.take_news() == ([], False)


def test_a_dead_context_ends_it(opened):
    memory, model = opened()
    model._before = lambda inputs: fake.break_context()
    with pytest.raises(ContextDeadError, match="an illegal memory access was encountered"):
        memory.recover(failure(memory, model, "a"), 1)


def test_a_vague_error_of_a_dead_context_is_seen_by_asking_the_device(opened):
    memory, model = opened()

    def vague(inputs):
        open_allocator(fake._here.options.address)._death = "unspecified launch failure"
        raise RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm")

    model._before = vague
    with pytest.raises(ContextDeadError, match="unspecified launch failure"):
        memory.recover(failure(memory, model, "a"), 1)


def test_a_context_that_died_while_the_model_had_returned_already_ends_it(opened):
    memory, _ = opened()

    def asynchronous(inputs):
        fake._here._death = "device-side assert triggered"
        return inputs

    with pytest.raises(RuntimeError, match="assert triggered") as raised:
        memory.call(asynchronous, ["a"])
    with pytest.raises(ContextDeadError):
        memory.recover(raised.value, 1)


@pytest.mark.parametrize("what", ["empty", "park"])
def test_a_context_that_is_found_dead_while_moving_ends_it(opened, what):
    memory, _ = opened()
    fake._here._death = "unspecified launch failure"
    with pytest.raises(ContextDeadError):
        memory.move(what)


# --- moving -----------------------------------------------------------------


def test_a_parked_model_leaves_the_device_and_a_woken_one_is_back(opened, device):
    memory, model = opened(weights=100)
    call(memory, model, "a")
    parked = memory.move("park")
    assert (parked.reserved, parked.is_done, device.used()) == (0, True, 0)
    woken = memory.move("wake")
    assert (woken.reserved, woken.is_done, device.used()) == (100 * MIB, True, 100 * MIB)
    assert call(memory, model, "a")[0].is_exact


def test_moving_twice_is_moving_once(opened, device):
    memory, model = opened(weights=100)
    memory.move("park")
    model.can_park = False  # nothing of it is there any more
    assert memory.move("park").is_done
    assert device.used() == 0
    memory.move("wake")
    assert memory.move("wake").is_done
    assert device.used() == 100 * MIB


def test_a_model_that_cannot_be_parked_stays_where_it_is(opened, device, caplog):
    memory, _ = opened(weights=100, can_park=False)
    assert not memory.move("park").is_done
    assert "cannot be parked" in caplog.text
    memory.wake()
    assert device.used() == memory.reserved == 100 * MIB


def test_a_model_that_fails_to_park_is_put_right_before_its_next_batch(opened, device, caplog):
    memory, model = opened(weights=100)

    def half_way():
        model.weights.park()
        raise OSError("no pinned memory")

    model.park = half_way
    assert not memory.move("park").is_done
    assert "no pinned memory" in caplog.text
    memory.wake()
    assert device.used() == 100 * MIB


def test_without_room_it_stays_parked_and_can_be_woken_later(opened, device, caplog):
    memory, _ = opened(weights=100)
    memory.move("park")
    other = fake.hold(1000 * MIB)
    with pytest.raises(OutOfRoomError, match="no room on the device to wake the model"):
        memory.wake()
    assert not memory.move("wake").is_done
    assert "cannot be woken now" in caplog.text
    other.free()
    memory.move("empty")
    assert memory.move("wake").is_done
    assert device.used() == 100 * MIB


def test_an_error_of_the_models_own_wake_passes_through(opened):
    memory, model = opened()
    memory.move("park")
    model.wake = refuse
    with pytest.raises(OSError, match="not today"):
        memory.wake()
    assert not memory.move("wake").is_done
