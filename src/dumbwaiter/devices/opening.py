"""Devices by address: ``cuda:0``, ``cuda:GPU-...``, ``cuda:MIG-...``, ``host``, ``host:8GiB``, ``fake:8GiB?path=...``,
``auto``.

``auto`` is the first GPU that is visible, and the host where there is none. A GPU that is there and cannot be asked
(the extra is missing, the driver does not answer) is an error: on the host's account its memory would be nobody's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from dumbwaiter.config.units import parse_duration, parse_size
from dumbwaiter.devices import fake
from dumbwaiter.devices.contract import Allocator, Device, DeviceError
from dumbwaiter.devices.cuda import CudaAllocator, CudaDevice, list_gpus, started_nvml
from dumbwaiter.devices.host import HostAllocator, HostDevice
from dumbwaiter.devices.visible_gpus import visible_targets
from dumbwaiter.errors import ConfigError, MissingExtraError
from dumbwaiter.spelling import did_you_mean

FORMS = "auto, cuda, cuda:1, cuda:GPU-<uuid>, cuda:MIG-<uuid>, host, host:8GiB or fake:8GiB?path=FOLDER"
#: What NVIDIA's drivers make of a GPU: on Linux, in WSL, on Jetson. Where none is there NVML is not even asked.
_SIGNS = ("dev/nvidiactl", "dev/dxg", "dev/nvmap")


def open_device(address: str, *, environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Device:
    """The device at *address*, from outside.

    *environ* is where CUDA_VISIBLE_DEVICES is read, *root* the file system in which a driver is looked for. Raises
    ConfigError for an address that has no such form, MissingExtraError, and DeviceError when there is no such device.
    """
    kind, rest = _parts(address)
    if kind == "host":
        return HostDevice(_size(rest, address) if rest else None)
    if kind == "fake":
        return fake.FakeDevice(fake_options(address))
    has_driver = any((root / sign).exists() for sign in _SIGNS)
    if kind == "cuda" and not has_driver:
        signs = ", ".join(f"/{sign}" for sign in _SIGNS)
        raise DeviceError(
            f"{address}: this machine has no NVIDIA driver (none of {signs} is there); write host:8GiB or none"
        )
    try:
        if kind == "auto" and not (has_driver and visible_targets(list_gpus(started_nvml()), environ)):
            return HostDevice()
        return CudaDevice(rest or "0", environ=environ)
    except MissingExtraError as error:
        raise MissingExtraError(error.package, error.extra, error.distribution, wanted=address) from error


def open_allocator(address: str, *, environ: Mapping[str, str] = os.environ) -> Allocator:
    """What this process has of the device at *address*, which is a Device.address. *environ* is this process's.

    Raises ConfigError, MissingExtraError, and DeviceError when this process cannot use that device.
    """
    kind, rest = _parts(address)
    if kind == "host":
        return HostAllocator()
    if kind == "fake":
        return fake.open_here(fake_options(address))
    if kind == "cuda" and rest.startswith(("GPU-", "MIG-")):
        return CudaAllocator(rest, environ=environ)
    raise ConfigError(f"{address!r} does not say which device it is; open it with open_device(), and pass its address")


def fake_options(address: str) -> fake.FakeOptions:
    """What ``fake:8GiB?path=FOLDER&...`` says; see fake.py. Raises ConfigError, naming the option."""
    capacity, _, query = _parts(address)[1].partition("?")
    given: dict[str, str] = {}
    for name, _, value in (part.partition("=") for part in query.split("&") if part):
        if name not in _READERS:
            raise ConfigError(
                f"{address!r}: no option {name!r}; there are {', '.join(_READERS)}{did_you_mean(name, _READERS)}"
            )
        if name in given:
            raise ConfigError(f"{address!r}: option {name!r} stands twice")
        given[name] = unquote(value)
    if not given.get("path"):
        raise ConfigError(f"{address!r} needs a folder that its processes share; write fake:8GiB?path=FOLDER")
    nbytes = _size(capacity, address)
    folder = Path(given.pop("path")).expanduser().absolute()
    try:
        read = {name: _READERS[name](value) for name, value in given.items()}
    except ValueError as error:
        raise ConfigError(f"{address!r}: {error}") from None
    whole = "&".join(
        [f"fake:{nbytes}?path={quote(str(folder))}", *(f"{name}={value}" for name, value in given.items())]
    )
    return fake.FakeOptions(address=whole, folder=folder, capacity=nbytes, **read)


def _parts(address: str) -> tuple[str, str]:
    kind, colon, rest = address.partition(":")
    known = ("auto", "cuda", "host", "fake")
    if kind not in known or (kind == "auto" and colon) or (colon and not rest) or (kind == "fake" and not colon):
        raise ConfigError(f"{address!r} names no device; there are {FORMS}{did_you_mean(kind, known)}")
    return kind, rest


def _size(text: str, address: str) -> int:
    try:
        nbytes = parse_size(text)
    except ValueError as error:
        raise ConfigError(f"{address!r}: {error}") from None
    if not nbytes:
        raise ConfigError(f"{address!r} is a device without memory; write how much it has, such as 8GiB")
    return nbytes


def _rate(text: str) -> float:
    nbytes = parse_size(text)
    if not nbytes:
        raise ValueError("a rate of 0 bytes a second never ends; leave it out for one without delay")
    return float(nbytes)


def _delay(text: str) -> float:
    return float("inf") if text == "never" else parse_duration(text)


def _flag(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError(f"expected true or false, not {text!r}")
    return text == "true"


_READERS: Mapping[str, Callable[[str], Any]] = {
    "path": str,
    "context": parse_size,
    "load": _rate,
    "park": _rate,
    "wake": _rate,
    "frees_after": _delay,
    "cache": _flag,
}
