"""What an exception says of a device: too little memory, or a context that is dead. Pure; by type, code and text.

Nothing is imported, so it serves any framework: torch, and what else speaks of CUDA's errors by their names and words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class _Sticky(NamedTuple):
    runtime: str
    driver: str
    words: str


#: Errors after which "the process must be terminated and relaunched": their names in both interfaces, and the words of
#: cudaGetErrorString(). Source: https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html. Of 214, 709,
#: 810 and 999 the documentation does not say so, but nothing is known to work after them either.
_STICKY = {
    214: _Sticky("cudaErrorECCUncorrectable", "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"),
    220: _Sticky(
        "cudaErrorNvlinkUncorrectable",
        "CUDA_ERROR_NVLINK_UNCORRECTABLE",
        "uncorrectable NVLink error detected during the execution",
    ),
    226: _Sticky(
        "cudaErrorContained",
        "CUDA_ERROR_CONTAINED",
        "Invalid access of peer GPU memory over nvlink or a hardware error",
    ),
    700: _Sticky("cudaErrorIllegalAddress", "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"),
    702: _Sticky("cudaErrorLaunchTimeout", "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"),
    709: _Sticky("cudaErrorContextIsDestroyed", "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"),
    710: _Sticky("cudaErrorAssert", "CUDA_ERROR_ASSERT", "device-side assert triggered"),
    714: _Sticky("cudaErrorHardwareStackError", "CUDA_ERROR_HARDWARE_STACK_ERROR", "hardware stack error"),
    715: _Sticky(
        "cudaErrorIllegalInstruction", "CUDA_ERROR_ILLEGAL_INSTRUCTION", "an illegal instruction was encountered"
    ),
    716: _Sticky("cudaErrorMisalignedAddress", "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"),
    717: _Sticky(
        "cudaErrorInvalidAddressSpace",
        "CUDA_ERROR_INVALID_ADDRESS_SPACE",
        "operation not supported on global/shared address space",
    ),
    718: _Sticky("cudaErrorInvalidPc", "CUDA_ERROR_INVALID_PC", "invalid program counter"),
    719: _Sticky("cudaErrorLaunchFailure", "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"),
    721: _Sticky("cudaErrorTensorMemoryLeak", "CUDA_ERROR_TENSOR_MEMORY_LEAK", "tensor memory not completely freed"),
    810: _Sticky(
        "cudaErrorMpsClientTerminated",
        "CUDA_ERROR_MPS_CLIENT_TERMINATED",
        "the MPS client has been terminated by the server",
    ),
    999: _Sticky("cudaErrorUnknown", "CUDA_ERROR_UNKNOWN", "unknown error"),
}
#: What stands before the words: torch's two ways, and Triton's.
_PREFIXES = ("CUDA error: ", "CUDA driver error: ", "Triton Error [CUDA]: ")
_MEMORY_ALLOCATION = 2

#: Libraries say so in the text alone.
_NO_DEVICE_MEMORY = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "cudaErrorMemoryAllocation",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUSPARSE_STATUS_ALLOC_FAILED",
    "CUFFT_ALLOC_FAILED",
)
_NO_HOST_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "Cannot allocate memory", "std::bad_alloc")


def is_device_out_of_memory(error: BaseException) -> bool:
    """Whether *error*, or what it was raised from, says that a device had no memory left. The host's is not meant."""
    return any(_lacks_device_memory(one) for one in _causes(error))


def is_host_out_of_memory(error: BaseException) -> bool:
    """Whether *error*, or what it was raised from, says that the host's memory did not suffice."""
    return any(
        isinstance(one, MemoryError)
        or (isinstance(one, (RuntimeError, OSError)) and any(words in str(one) for words in _NO_HOST_MEMORY))
        for one in _causes(error)
    )


def is_context_dead(error: BaseException) -> bool:
    """Whether *error*, or any in whose handling it was raised, leaves its process without a usable CUDA context.

    One that is vague (CUBLAS_STATUS_EXECUTION_FAILED) is none: whoever must know synchronizes, which is never vague.
    """
    return any(_is_sticky(one) for one in _behind(error))


def _lacks_device_memory(error: BaseException) -> bool:
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    if not isinstance(error, RuntimeError):
        return False
    return _code(error) == _MEMORY_ALLOCATION or any(words in str(error) for words in _NO_DEVICE_MEMORY)


def _is_sticky(error: BaseException) -> bool:
    if _code(error) in _STICKY:
        return True
    text = str(error)
    # The words alone are those of many: a "misaligned address" may be a letter's.
    if not isinstance(error, Exception) or "cuda" not in text.lower():
        return False
    return any(
        one.runtime in text or one.driver in text or any(prefix + one.words in text for prefix in _PREFIXES)
        for one in _STICKY.values()
    )


def _code(error: BaseException) -> object:
    """That of the CUDA runtime, where the framework tells it (torch.AcceleratorError does)."""
    return getattr(error, "error_code", None) if type(error).__name__ == "AcceleratorError" else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """*error* and what it was raised from. Not what was merely being handled: that may have been dealt with."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__


def _behind(error: BaseException) -> Iterator[BaseException]:
    """*error* and all that it was raised from, or in the handling of."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__]
            waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
