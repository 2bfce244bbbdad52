"""NVIDIA GPUs: from outside through NVML (``nvidia-ml-py``), from inside through torch. The extra ``cuda`` has both.

What a card says is checked by tests/devices/test_cuda_on_a_card.py, where there is one.

From outside no CUDA context is made. A device is known by its UUID, a MIG instance by its own, and the runner is
started with ``CUDA_VISIBLE_DEVICES`` set to that: inside it is always ``cuda:0``, whatever order CUDA counts in. Its
use is asked as a whole and never by process id, for NVML knows those of the host and a container has others.

**Used** includes what the driver keeps for itself, so it is above the sum of all processes even on an idle card. GPUs
that share the machine's memory (GB10, Jetson) have none of their own that NVML could tell: theirs is the machine's.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from typing import Any

from dumbwaiter.devices.contract import Allocator, Device, DeviceError
from dumbwaiter.devices.failures import is_context_dead, is_device_out_of_memory
from dumbwaiter.devices.host_memory import machine_memory
from dumbwaiter.devices.visible_gpus import Gpu, choose
from dumbwaiter.errors import MissingExtraError

_NOT_SUPPORTED = 3
#: It has no MIG: the card, or its driver.
_CANNOT_BE_SPLIT = {_NOT_SUPPORTED, 13}
#: Nothing is at that place, or what is there was given to another container.
_NOT_THERE = {4, 6}
#: Models whose memory is the machine's. Of any other that does not tell its own, the machine's would be far too much.
_SHARES_MEMORY = re.compile(r"GB10|Orin|Thor|Xavier|Tegra|nvgpu")
#: Of less, the pieces are few.
_WORTH_PREPARING = 64 << 20
#: The pool of all that was not captured in a graph.
_COMMON = (0, 0)
#: NVML's return codes, as nvml.h numbers them, and what to do about them.
_NEXT_STEPS = {
    3: "this driver does not tell that of this GPU: update it",
    4: "let this user read and write /dev/nvidia*",
    9: "load the NVIDIA driver: does nvidia-smi work here?",
    12: "install the NVIDIA driver; a container must be given the GPU with its driver's tools: docker run --gpus all,"
    " with NVIDIA_DRIVER_CAPABILITIES=compute,utility",
    15: "the GPU has fallen off the bus: look into dmesg for Xid, and reset it or restart the machine",
    18: "the driver was updated while its kernel module was running: restart the machine",
}


class CudaDevice(Device):
    """A GPU or MIG instance from outside, by *name*: what follows ``cuda:``, a place or a UUID.

    Raises MissingExtraError without nvidia-ml-py, DeviceError when NVML does not work here or knows no such device.
    *nvml* is the module to ask, the one of nvidia-ml-py by default.
    """

    def __init__(self, name: str, *, environ: Mapping[str, str] = os.environ, nvml: Any = None) -> None:
        self._nvml = started_nvml() if nvml is None else nvml
        target = choose(name, list_gpus(self._nvml), environ)
        self._uuid, self._model = target.uuid, target.gpu.model
        self._handle = _asked(self._nvml, self._uuid, "nvmlDeviceGetHandleByUUID", self._uuid)
        super().__init__(
            kind="cuda",
            name=self._uuid.replace("/", "-"),  # MIG-GPU-.../1/0, as older drivers name an instance
            address=f"cuda:{self._uuid}",
            capacity=self._memory()[0],
            frees_late=True,
        )

    def used(self) -> int:
        return self._memory()[1]

    def environment(self) -> Mapping[str, str]:
        return {"CUDA_VISIBLE_DEVICES": self._uuid}

    def _memory(self) -> tuple[int, int]:
        """All, and used."""
        try:
            found = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        except self._nvml.NVMLError as error:
            if _code(error) != _NOT_SUPPORTED or not _SHARES_MEMORY.search(self._model):
                raise _failed(error, self._uuid) from error
            return _shared_memory(self._uuid)
        return int(found.total), int(found.used)


def _shared_memory(uuid: str) -> tuple[int, int]:
    try:
        machine = machine_memory()
    except OSError as error:
        raise DeviceError(f"{uuid} shares the machine's memory, which cannot be read: {error}") from error
    return machine.total, machine.total - machine.available


def started_nvml() -> Any:
    """The module of nvidia-ml-py, ready to be asked. Raises MissingExtraError; DeviceError when NVML does not start."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as error:
        raise MissingExtraError("pynvml", "cuda", "nvidia-ml-py") from error
    # It counts its starts and stops; this process stops it by ending.
    _asked(nvml, "NVML", "nvmlInit")
    return nvml


def list_gpus(nvml: Any) -> list[Gpu]:
    """All cards that NVML sees, in the order of nvidia-smi. Raises DeviceError."""
    handles = [
        _asked(nvml, f"GPU {place}", "nvmlDeviceGetHandleByIndex", place)
        for place in range(_asked(nvml, "NVML", "nvmlDeviceGetCount"))
    ]
    return [_gpu(nvml, place, handle) for place, handle in enumerate(handles)]


def _gpu(nvml: Any, place: int, handle: Any) -> Gpu:
    where = f"GPU {place}"
    uuid = _text(_asked(nvml, where, "nvmlDeviceGetUUID", handle))
    model = _text(_asked(nvml, where, "nvmlDeviceGetName", handle))
    try:
        is_split = nvml.nvmlDeviceGetMigMode(handle)[0] == 1
    except nvml.NVMLError as error:
        if _code(error) not in _CANNOT_BE_SPLIT:
            raise _failed(error, where) from error
        is_split = False
    return Gpu(uuid, model, _instances(nvml, where, handle) if is_split else None)


def _instances(nvml: Any, where: str, handle: Any) -> tuple[str, ...]:
    found = []
    for place in range(_asked(nvml, where, "nvmlDeviceGetMaxMigDeviceCount", handle)):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
        except nvml.NVMLError as error:
            if _code(error) not in _NOT_THERE:
                raise _failed(error, where) from error
            continue
        found.append(_text(_asked(nvml, where, "nvmlDeviceGetUUID", instance)))
    return tuple(found)


def _asked(nvml: Any, what: str, call: str, *arguments: Any) -> Any:
    try:
        return getattr(nvml, call)(*arguments)
    except nvml.NVMLError as error:
        raise _failed(error, what) from error


def _failed(error: Any, what: str) -> DeviceError:
    step = _NEXT_STEPS.get(_code(error), "does nvidia-smi work here?")
    return DeviceError(f"{what} does not answer: {error} (NVML error {_code(error)}); {step}")


def _code(error: Any) -> int:
    return int(error.value)


def _text(value: str | bytes) -> str:
    """Bindings of before 2021 return bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _is_plain(segment: Mapping[str, Any]) -> bool:
    """Whether *segment*, of torch's snapshot, is in the common pool, and takes no more once it is there."""
    return tuple(segment.get("segment_pool_id", _COMMON)) == _COMMON and not segment.get("is_expandable", False)


class CudaAllocator(Allocator):
    """What torch has of the device *uuid*, which must be the first that this process sees.

    Raises MissingExtraError without torch, DeviceError when torch has no CUDA, or when this process sees other devices:
    it was not started with Device.environment(). No context is made yet.
    """

    def __init__(self, uuid: str, *, environ: Mapping[str, str] = os.environ) -> None:
        visible = environ.get("CUDA_VISIBLE_DEVICES")
        if visible != uuid:
            raise DeviceError(f"this process was to use {uuid} alone, but has CUDA_VISIBLE_DEVICES={visible}")
        try:
            self._torch = importlib.import_module("torch")
        except ImportError as error:
            raise MissingExtraError("torch", "cuda") from error
        if self._torch.version.cuda is None:
            raise DeviceError(
                f"this torch ({self._torch.__version__}) is built without CUDA and cannot use {uuid}; install one with"
                " it, see https://pytorch.org/get-started, or let the model use the CPU, with the device host"
            )
        self._uuid = uuid

    def open_context(self) -> None:
        try:
            self._torch.cuda.init()
            # The context comes with the first allocation, which is then given back.
            self._torch.empty(1, device="cuda:0")
            self._torch.cuda.synchronize(0)
            self._torch.cuda.empty_cache()
        except RuntimeError as error:
            raise DeviceError(f"cannot use {self._uuid}: {error}") from error

    def reserved(self) -> int:
        return int(self._torch.cuda.memory_reserved(0))

    def reset_peak(self) -> None:
        self._torch.cuda.reset_peak_memory_stats(0)

    def peak(self) -> int:
        return int(self._torch.cuda.max_memory_reserved(0))

    def empty_cache(self) -> None:
        self._torch.cuda.empty_cache()

    def synchronize(self) -> None:
        self._torch.cuda.synchronize(0)

    def preparable(self) -> int:
        """Bytes that are cached now, after a batch, and could as well have been taken in one piece, and sooner.

        None where any is for a stream or pool of its own, which that piece would not serve. Small tensors have segments
        that nothing else goes into. Expandable segments take as long either way, and cudaMallocAsync has none.
        """
        cuda = self._torch.cuda
        if cuda.memory.get_allocator_backend() != "native":
            return 0
        segments, stream = cuda.memory_snapshot(), cuda.current_stream(0).cuda_stream
        if not all(segment["stream"] == stream and _is_plain(segment) for segment in segments):
            return 0
        cached = [one["total_size"] for one in segments if one["segment_type"] == "large" and not one["active_size"]]
        return sum(cached) if sum(cached) >= _WORTH_PREPARING else 0

    def prepare(self, nbytes: int) -> None:
        """Have *nbytes* cached, in one piece. On an H100, batches of 2 to 5 GB in some 80 pieces took 7 to 19 ms more
        without it, and 0.5 to 0.9 ms with it. Raises torch.OutOfMemoryError.
        """
        self._torch.empty(nbytes, dtype=self._torch.uint8, device="cuda:0")

    def is_out_of_memory(self, error: BaseException) -> bool:
        return is_device_out_of_memory(error)

    def is_sticky(self, error: BaseException) -> bool:
        return is_context_dead(error)
