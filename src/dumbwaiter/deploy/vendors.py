"""Versions with a ``+``, which PyPI does not take: where pip finds them, and which of them use no GPU. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dumbwaiter.config import Settings
from dumbwaiter.deploy.moving import wants_gpu
from dumbwaiter.deploy.requirements import Requirements

_TORCH = frozenset({"torch", "torchaudio", "torchvision"})
_TORCH_BUILD = re.compile(r"cpu|cu[0-9]+|rocm[0-9.]+|xpu")
_TORCH_INDEX = "https://download.pytorch.org/whl/%s"
UNKNOWN = "INDEX-OF-THE-VENDOR"
"""In place of an index that nobody here knows."""


def vendored(found: Requirements) -> list[str]:
    """The pins of *found* that their vendors alone have. What was installed from a folder becomes a wheel instead."""
    return [pin for pin in found.pins if "+" in pin and _name(pin) not in found.local]


def indexes(found: Requirements) -> list[str]:
    """Where pip finds them, once each, with UNKNOWN for what is not known."""
    return list(dict.fromkeys(map(_index, vendored(found))))


def told(found: Requirements) -> Iterator[str]:
    """A line on each."""
    for pin in vendored(found):
        index = _index(pin)
        where = f"; write its URL for {UNKNOWN}, or put the wheel into wheels/" if index == UNKNOWN else f", {index}"
        yield f"`{pin}` is in no index but its vendor's{where}"


def doubts(found: Requirements, settings: Settings) -> Iterator[str]:
    """Where a model would get a GPU that a package cannot use."""
    models = [f'models.{name} ("{model.device}")' for name, model in settings.models.items() if wants_gpu(model)]
    for pin in found.pins if models else ():
        if re.search(r"\+cpu(\.|$)", pin):
            yield (
                f"`{pin}` computes on the CPU alone, and a GPU is given to {', '.join(models)}; render where a build"
                ' for GPUs is installed, or write device = "none"'
            )


def _index(pin: str) -> str:
    build = pin.partition("+")[2]
    return _TORCH_INDEX % build if _name(pin) in _TORCH and _TORCH_BUILD.fullmatch(build) else UNKNOWN


def _name(pin: str) -> str:
    return re.split(r"[\[=]", pin, maxsplit=1)[0]
