"""Which GPUs a process may see, and which of them a name means. Pure.

Sources: https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html and
https://docs.nvidia.com/datacenter/tesla/mig-user-guide/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from dumbwaiter.devices.contract import DeviceError

_NUMBER = re.compile(r"\+?[0-9]+")


class Gpu(NamedTuple):
    """One card as the driver lists it. *instances* are the UUIDs of its MIG instances, None while MIG is off."""

    uuid: str
    model: str
    instances: tuple[str, ...] | None = None


class Target(NamedTuple):
    """What a model can run on: a card, or one MIG instance of it."""

    uuid: str
    gpu: Gpu


def visible_targets(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> list[list[Target]]:
    """For each place ``cuda:0``, ``cuda:1`` ... what it may mean: several only for a card that is split by MIG.

    *gpus* are in the order of nvidia-smi. Raises DeviceError where CUDA_VISIBLE_DEVICES counts cards in an order that
    cannot be known here. As in CUDA, what follows an unknown name is not visible, and nothing is if a name comes twice.
    """
    text = environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return [targets_of(gpu) for gpu in gpus]
    _require_known_order(gpus, text, environ)
    found: list[list[Target]] = []
    for name in text.split(","):
        targets = _named(name.strip(), gpus)
        if not targets:
            break
        if targets in found:
            return []
        found.append(targets)
    return found


def targets_of(gpu: Gpu) -> list[Target]:
    """The card itself, or its MIG instances."""
    return [Target(gpu.uuid, gpu)] if gpu.instances is None else [Target(uuid, gpu) for uuid in gpu.instances]


def choose(name: str, gpus: Sequence[Gpu], environ: Mapping[str, str]) -> Target:
    """What *name* means, the part after ``cuda:``: a place in what is visible, or enough of a UUID to be unique.

    Raises DeviceError, saying what there is.
    """
    visible = visible_targets(gpus, environ)
    if _NUMBER.fullmatch(name) and int(name) < len(visible):
        return _only(name, visible[int(name)])
    matching: list[Target] = []
    if name.startswith(("GPU-", "MIG-")):
        seen = list(_flat(visible))
        # Of a card that is split, its own name means any of its instances.
        near = [target for target in seen if target.uuid.startswith(name) or target.gpu.uuid.startswith(name)]
        matching = [target for target in seen if target.uuid == name] or near
    if not matching:
        raise DeviceError(_what_there_is(name, gpus, visible, environ))
    return _only(name, matching)


def _require_known_order(gpus: Sequence[Gpu], text: str, environ: Mapping[str, str]) -> None:
    is_fastest_first = environ.get("CUDA_DEVICE_ORDER", "FASTEST_FIRST") != "PCI_BUS_ID"
    if (
        is_fastest_first
        and len({gpu.model for gpu in gpus}) > 1
        and any(_NUMBER.match(n.strip()) for n in text.split(","))
    ):
        raise DeviceError(
            f"CUDA_VISIBLE_DEVICES={text} counts the GPUs from the fastest on, and they are of several models:"
            f" {', '.join(gpu.model for gpu in gpus)}; set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID"
        )


def _named(name: str, gpus: Sequence[Gpu]) -> list[Target]:
    """What *name* in CUDA_VISIBLE_DEVICES means; nothing for an unknown or ambiguous one."""
    if match := _NUMBER.match(name):  # CUDA reads the digits that it begins with
        return targets_of(gpus[int(match[0])]) if int(match[0]) < len(gpus) else []
    if name.startswith("MIG-"):
        found = [
            [target] for gpu in gpus if gpu.instances for target in targets_of(gpu) if target.uuid.startswith(name)
        ]
    elif name.startswith("GPU-"):
        found = [targets_of(gpu) for gpu in gpus if gpu.uuid.startswith(name)]
    else:
        return []
    return found[0] if len(found) == 1 else []


def _only(name: str, targets: Sequence[Target]) -> Target:
    if len(targets) == 1:
        return targets[0]
    if not targets:
        raise DeviceError(f"cuda:{name} is in MIG mode and has no instance; make one with: nvidia-smi mig -cgi ... -C")
    uuids = ", ".join(f"cuda:{target.uuid}" for target in targets)
    raise DeviceError(f"cuda:{name} may be any of {len(targets)}; name one: {uuids}")


def _what_there_is(
    name: str, gpus: Sequence[Gpu], visible: Sequence[Sequence[Target]], environ: Mapping[str, str]
) -> str:
    places = [f"cuda:{place} ({_in_words(targets)})" for place, targets in enumerate(visible)]
    there = f"there is {', '.join(places)}" if places else "no GPU is visible"
    hidden = len(gpus) - len({target.gpu.uuid for target in _flat(visible)})
    variable = environ.get("CUDA_VISIBLE_DEVICES")
    why = f"; CUDA_VISIBLE_DEVICES={variable} hides {hidden} of {len(gpus)}" if hidden and variable is not None else ""
    return f"there is no cuda:{name}; {there}{why}"


def _in_words(targets: Sequence[Target]) -> str:
    if not targets:
        return "in MIG mode, without instances"
    return f"{targets[0].gpu.model}, {' or '.join(target.uuid for target in targets)}"


def _flat(visible: Sequence[Sequence[Target]]) -> Iterator[Target]:
    return (target for targets in visible for target in targets)
