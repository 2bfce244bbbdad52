"""One batch through the model: each member gets its own verdict."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
import torch

from dumbwaiter.devices import fake
from dumbwaiter.devices.opening import open_allocator
from dumbwaiter.errors import BadInputError, PermanentError, TransientError
from dumbwaiter.worker.device_memory import ContextDeadError, DeviceMemory
from dumbwaiter.worker.execution import NotRun, describe_fault, run_batch


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


def from_cause(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class ScriptedModel:
    """A model whose predict() is given as a function; it remembers the batch sizes."""

    max_batch = 16
    cheap_decode = True

    def __init__(self, predict: Callable[[Sequence[Any]], list[Any]]) -> None:
        self._predict = predict
        self.sizes: list[int] = []

    def predict(self, inputs: Sequence[Any]) -> list[Any]:
        self.sizes.append(len(inputs))
        return self._predict(inputs)


def fail_on(*bad: int) -> Callable[[Sequence[Any]], list[Any]]:
    def predict(inputs: Sequence[Any]) -> list[Any]:
        for one in inputs:
            if one in bad:
                raise ValueError(f"{one} is bad")
        return [one * 10 for one in inputs]

    return predict


def run_all(model: ScriptedModel, inputs: Sequence[Any]) -> list[Any]:
    return run_batch(model, inputs, lambda _: None)


def test_a_good_batch_is_one_call() -> None:
    model = ScriptedModel(fail_on())
    assert run_all(model, [1, 2, 3]) == [10, 20, 30]
    assert model.sizes == [3]


def test_it_is_said_before_each_call_who_runs() -> None:
    """So that who kills or hangs the runner in a second attempt is blamed alone."""
    places: list[range] = []
    run_batch(ScriptedModel(fail_on(2)), [1, 2, 3], places.append)
    assert places == [range(3), range(1), range(1, 2), range(2, 3)]


def test_one_bad_member_fails_alone_and_its_mates_lose_nothing() -> None:
    outputs = run_all(ScriptedModel(fail_on(2)), [1, 2, 3])
    assert outputs[0] == 10
    assert outputs[2] == 30
    assert isinstance(outputs[1], ValueError)


def test_an_exception_in_one_place_of_a_result_is_kept_there() -> None:
    outputs = run_all(ScriptedModel(lambda inputs: [1, TransientError("later"), 3]), [1, 2, 3])
    assert outputs[0] == 1
    assert isinstance(outputs[1], TransientError)


def test_out_of_memory_halves_the_batch_until_it_fits() -> None:
    def predict(inputs: Sequence[Any]) -> list[Any]:
        if len(inputs) > 2:
            raise OutOfMemoryError("CUDA out of memory")
        return list(inputs)

    model = ScriptedModel(predict)
    assert run_all(model, list(range(8))) == list(range(8))
    assert model.sizes == [8, 4, 2, 2, 4, 2, 2]


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (BadInputError("not an image"), "permanent", "bad-input"),
        (PermanentError("no such class"), "permanent", "model-error"),
        (TransientError("the other service is down"), "transient", "transient"),
        (ConnectionResetError("peer"), "transient", "transient"),
        (OSError(errno.ENOSPC, "disk full"), "transient", "transient"),
        (OSError(errno.ENOENT, "no file"), "unknown", "model-error"),
        (OutOfMemoryError("CUDA out of memory"), "transient", "out-of-memory"),
        (MemoryError(), "transient", "out-of-memory"),
        (from_cause(ValueError("it failed"), OutOfMemoryError("CUDA out of memory")), "transient", "out-of-memory"),
        (ValueError("what?"), "unknown", "model-error"),
        (RuntimeError("CUDA error: device-side assert triggered"), "unknown", "model-error"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
            "transient",
            "out-of-memory",
        ),
        (BadInputError(), "permanent", "bad-input"),
    ],
)
def test_errors_are_told_apart(error: BaseException, kind: str, code: str) -> None:
    fault = describe_fault(error)
    assert (fault.kind.value, fault.code) == (kind, code)
    assert fault.message
    assert type(error).__name__ in fault.detail


def test_out_of_host_memory_in_torch_halves_the_batch_too() -> None:
    def predict(inputs: Sequence[Any]) -> list[Any]:
        if len(inputs) > 1:
            torch.empty(2**60, dtype=torch.uint8)
        return list(inputs)

    model = ScriptedModel(predict)
    assert run_all(model, [1, 2, 3]) == [1, 2, 3]
    assert model.sizes == [3, 2, 1, 1, 1]


# --- on a shared device ---


@pytest.fixture
def run_on_device(tmp_path) -> Iterator[Callable[..., list[Any]]]:
    """run_batch() on a fake device of 4 KiB."""
    allocator = open_allocator(f"fake:4KiB?path={tmp_path}/card")
    allocator.open_context()
    yield lambda model, inputs: run_batch(model, inputs, lambda _: None, memory=DeviceMemory(allocator, model))
    fake.close_here()


def taking_a_kib_each(inputs: Sequence[Any]) -> list[Any]:
    with fake.use(1024 * len(inputs)):
        return [one * 10 for one in inputs]


def test_out_of_a_shared_devices_memory_only_the_first_half_is_run(run_on_device) -> None:
    model = ScriptedModel(taking_a_kib_each)
    outputs = run_on_device(model, list(range(15)))
    assert model.sizes == [15, 8, 4]
    assert outputs[:4] == [0, 10, 20, 30]
    assert [type(one) for one in outputs[4:]] == [NotRun] * 11


def test_out_of_the_hosts_memory_all_halves_are_run_there_too(run_on_device) -> None:
    def predict(inputs: Sequence[Any]) -> list[Any]:
        if len(inputs) > 2:
            raise MemoryError
        return list(inputs)

    model = ScriptedModel(predict)
    assert run_on_device(model, list(range(4))) == list(range(4))
    assert model.sizes == [4, 2, 2]


def test_a_bad_member_fails_alone_there_too(run_on_device) -> None:
    outputs = run_on_device(ScriptedModel(fail_on(2)), [1, 2, 3])
    assert (outputs[0], type(outputs[1]), outputs[2]) == (10, ValueError, 30)


def test_on_a_dead_device_nobody_else_is_tried(run_on_device) -> None:
    model = ScriptedModel(lambda _: fake.break_context())
    with pytest.raises(ContextDeadError):
        run_on_device(model, [1, 2, 3])
    assert model.sizes == [3]


def test_the_message_is_the_error_and_not_a_note_added_to_it() -> None:
    error = ValueError("the reason")
    error.add_note("a note")
    fault = describe_fault(error)
    assert fault.message == "ValueError: the reason"
    assert "a note" in fault.detail


def test_a_fault_can_be_sent_whatever_its_text_holds() -> None:
    fault = describe_fault(ValueError("cannot open menu\udce9.jpg"))
    assert fault.message == "ValueError: cannot open menu\\udce9.jpg"
    assert msgspec.msgpack.encode(fault)
    assert len(describe_fault(ValueError("x" * 100_000)).message) == 500
