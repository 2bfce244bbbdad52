"""What is asked for: a model, and perhaps settings of scaling in place of those of the settings file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from dumbwaiter.config import ScalingSettings, Settings
from dumbwaiter.config.checking import Source, checked, fault_of_name
from dumbwaiter.config.lines import Keys
from dumbwaiter.errors import ConfigError, DumbwaiterError
from dumbwaiter.spelling import did_you_mean

OF_KEDA = frozenset(
    {"scalerAddress", "enableTLS", "unsafeSsl", "tlsCertFile", "caCert", "tlsClientCert", "tlsClientKey"}
)
"""What a trigger's metadata say to KEDA itself. It passes them on with the rest."""
LEAST, MOST = 1e-3, 1e9
"""Between these are the numbers that may be asked for, 0 apart."""
WORKERS_EACH = "workers_each"
"""What a trigger's metadata say of a pod that has several workers."""
_MOST_EACH = 1000
_SETTINGS: Mapping[str, Keys] = {
    **{name: ("scaling", name) for name in ScalingSettings.__struct_fields__},
    "boot": ("kubernetes", "boot"),
}
"""The setting that each name stands for."""


class Asked(msgspec.Struct, frozen=True):
    """Which *model*, and how it is scaled. *is_configured*: the settings name it, so it may come to have a queue.
    *boot*: how long a node and its image take to be there, before what workers measure of their own start.
    """

    model: str
    scaling: ScalingSettings
    is_configured: bool
    boot: float = 0.0


class Trigger(NamedTuple):
    """A trigger's *metadata* without how many workers a pod has: *each*."""

    metadata: Mapping[str, str]
    each: int


class NoSuchModelError(DumbwaiterError):
    """Nobody knows *model*: neither the settings nor the broker."""

    def __init__(self, model: str, known: Mapping[str, object]) -> None:
        self.model = model
        super().__init__(
            f"no model {model!r}: it has no queue, and no table models.{model} in the scaler's settings"
            f"{did_you_mean(model, known)}"
        )


def trigger(metadata: Mapping[str, str]) -> Trigger:
    """What *metadata* of KEDA's say. Raises ConfigError where they name no number of workers."""
    rest = dict(metadata)
    text = rest.pop(WORKERS_EACH, "1")
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(_MOST_EACH)) and 1 <= int(text) <= _MOST_EACH):
        raise ConfigError(
            f"scalerMetadata: {WORKERS_EACH}: expected a whole number from 1 to {_MOST_EACH}, not {text!r}"
        )
    return Trigger(rest, int(text))


def asked(metadata: Mapping[str, str], settings: Settings, *, where: str = "scalerMetadata") -> Asked:
    """The model and its settings that *metadata* name. Raises ConfigError, naming what to write *where*."""
    if not (model := metadata.get("model", "")):
        raise ConfigError(f"{where} names no model; write model: NAME")
    if (fault := fault_of_name(model)) is not None:
        raise ConfigError(f"{where}: {fault}")
    given = {name: text for name, text in metadata.items() if name not in OF_KEDA and name != "model"}
    for name in given:
        if name not in _SETTINGS:
            near = did_you_mean(name, ["model", *_SETTINGS]) or f"; there are model, {', '.join(_SETTINGS)}"
            raise ConfigError(f"{where}: unknown name {name!r}{near}")
    source = Source({_SETTINGS[name]: text for name, text in given.items()}, lambda _: where, Path(), text=True)
    values = {keys[-1]: checked(source, keys, text) for keys, text in source.values.items()}
    for name, value in values.items():
        # Who writes a settings file may be trusted with numbers; a stranger's must not overflow what is made of them.
        if isinstance(value, (int, float)) and value != 0 and not LEAST <= value <= MOST:
            setting = ".".join(_SETTINGS[name])
            raise ConfigError(f"{where}: {setting}: expected a number from {LEAST:g} to {MOST:g}, not {given[name]!r}")
    boot = values.pop("boot", 0.0)
    configured = settings.models.get(model)
    scaling = msgspec.structs.replace(configured.scaling if configured else settings.scaling, **values)
    if scaling.max_replicas is not None and scaling.min_replicas > scaling.max_replicas:
        crossed = f"{scaling.min_replicas} is more than max_replicas, which is {scaling.max_replicas}"
        raise ConfigError(f"{where}: scaling.min_replicas: {crossed}")
    return Asked(model, scaling, configured is not None, boot)
