"""What an exception says of a device."""

from __future__ import annotations

import pytest
import torch

from dumbwaiter.devices.failures import is_context_dead, is_device_out_of_memory, is_host_out_of_memory


class OutOfMemoryError(Exception):
    """As other frameworks call theirs, torch's or not."""


class AcceleratorError(RuntimeError):
    def __init__(self, text, error_code):
        super().__init__(text)
        self.error_code = error_code


def raised(error, *, cause=None, while_handling=None):
    """*error* with a history, as Python writes it down."""
    error.__cause__, error.__context__ = cause, while_handling or cause
    return error


ILLEGAL = "CUDA error: an illegal memory access was encountered\nSearch for `cudaErrorIllegalAddress' in https://docs"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        OutOfMemoryError("Out of memory allocating 1,000 bytes"),
        RuntimeError("CUDA error: out of memory"),
        AcceleratorError("whatever", 2),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("Triton Error [CUDA]: CUDA_ERROR_OUT_OF_MEMORY"),
        raised(ValueError("inference failed"), cause=torch.OutOfMemoryError("CUDA out of memory.")),
    ],
)
def test_a_device_that_is_full_is_told_by_type_code_and_text(error):
    assert is_device_out_of_memory(error)
    assert not is_context_dead(error)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_a_host_that_is_full_is_no_device_that_is_full(error):
    assert is_host_out_of_memory(error)
    assert not is_device_out_of_memory(error)


def test_real_errors_of_the_host_are_told():
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**50)
    with pytest.raises(MemoryError) as of_python:
        bytearray(2**60)
    assert is_host_out_of_memory(of_torch.value)
    assert is_host_out_of_memory(of_python.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError(ILLEGAL),
        RuntimeError(ILLEGAL),
        AcceleratorError("whatever", 710),
        RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("CUDA error: misaligned address"),
        RuntimeError("CUDA error: unknown error"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("cudaErrorLaunchTimeout: the launch timed out and was terminated"),
        RuntimeError("[700] Call to cuMemcpyDtoH results in CUDA_ERROR_ILLEGAL_ADDRESS"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("CUDA driver error: unspecified launch failure"),
        RuntimeError("INTERNAL: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"),
        raised(ValueError("inference failed"), cause=RuntimeError(ILLEGAL)),
        raised(KeyError("fallback"), while_handling=raised(ValueError("x"), while_handling=RuntimeError(ILLEGAL))),
        ExceptionGroup("two", [ValueError("x"), RuntimeError(ILLEGAL)]),
    ],
)
def test_an_error_after_which_the_context_is_dead_is_sticky(error):
    assert is_context_dead(error)
    assert not is_device_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("misaligned address in the header of the letter"),
        ValueError("an illegal memory access was encountered by the court"),
        RuntimeError("CUDA error: invalid device ordinal"),
        RuntimeError("CUDA error: invalid argument"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        AcceleratorError("CUDA error: invalid argument", 1),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_neither(error):
    assert not is_context_dead(error)
    assert not is_device_out_of_memory(error)
    assert not is_host_out_of_memory(error)


def test_an_out_of_memory_that_was_dealt_with_is_over_but_a_dead_context_is_not():
    handled = raised(ValueError("bad input"), while_handling=torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_device_out_of_memory(handled)


def test_errors_that_name_each_other_as_their_cause_are_read_once():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert not is_device_out_of_memory(one)
    assert not is_context_dead(one)
