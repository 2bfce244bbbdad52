"""Which models a command line means: ``[NAME=]MODULE:CLASS``, ``[NAME=]FILE.py:CLASS``, or a name in the settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from dumbwaiter.cli.options import current_settings, given_config
from dumbwaiter.config import ModelSettings, Settings, ledgers_folder, place_in_file
from dumbwaiter.config.checking import fault_of_name
from dumbwaiter.errors import ConfigError
from dumbwaiter.spelling import did_you_mean

if TYPE_CHECKING:
    from dumbwaiter.devices.sharing import Terms
    from dumbwaiter.models.contract import ModelSpec

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class Chosen(NamedTuple):
    """A model that was asked for: its name, the argument that says so, and the --weights and --device meant for it, if
    any.
    """

    name: str
    argument: str
    weights: str | None
    device: str | None = None


def settings_and_models(
    arguments: Sequence[str], weights: Sequence[str] = (), devices: Sequence[str] = ()
) -> tuple[Settings, list[Chosen]]:
    """The settings with the models of *arguments* in them, and those meant (all configured ones if none is named).

    Raises click.UsageError or ConfigError, naming what is wrong.
    """
    flags: list[tuple[str, tuple[str, ...], str]] = []
    names: dict[str, str] = {}
    for argument in arguments:
        name, target = split_argument(argument)
        if name in names:
            raise click.UsageError(f"two models are named {name!r}; name one of them otherwise: NAME={target}")
        names[name] = argument
        if target:
            flags.append((f"argument {argument!r}", ("models", name, "target"), target))
            flags.append((f"argument {argument!r}", ("models", name, "project"), "."))
    configured = current_settings().models
    names = names or {check_name(name): name for name in configured}
    heavy = _weights(weights, list(names))
    placed = _devices(devices, list(names))
    flags += [("--weights", ("models", name, "weights"), uri) for name, uri in heavy.items()]
    flags += [("--device", ("models", name, "device"), address) for name, address in placed.items()]
    settings = current_settings(flags)
    for name in names:
        if name not in settings.models or settings.models[name].target is None:
            raise _no_target(name, settings)
    return settings, [Chosen(name, argument, heavy.get(name), placed.get(name)) for name, argument in names.items()]


def _no_target(name: str, settings: Settings) -> Exception:
    if name in settings.models:
        place = place_in_file(("models", name), given_config())
        where = f"{place}: " if place else ""
        return ConfigError(f'{where}models.{name} has no target; write target = "MODULE:CLASS"')
    hint = did_you_mean(name, settings.models) or "; name it MODULE:CLASS, or write target = … under its settings"
    return click.UsageError(f"no model {name!r} in the settings{hint}")


def split_argument(argument: str) -> tuple[str, str | None]:
    """Name and target; the target is None for a bare name. The name defaults to the class's in lower case."""
    name, equals, target = argument.partition("=")
    if not equals:
        target = argument
    _, colon, class_name = target.rpartition(":")
    if not colon and equals and ":" in name:
        raise click.UsageError(f"{argument!r}: the name comes first; write NAME=MODULE:CLASS, here {target}={name}")
    if not colon and equals:
        raise click.UsageError(f"{argument!r} names no class; write NAME=MODULE:CLASS, such as {name}=network:Infer")
    if not colon:
        if argument.endswith(".py") or "/" in argument:
            raise click.UsageError(f"{argument!r} names no class; write {argument}:CLASS, such as {argument}:Infer")
        return check_name(argument), None
    return check_name(name if equals else class_name.rpartition(".")[2].lower()), target


def check_name(name: str) -> str:
    """*name* if it can name a model and its queue."""
    if (fault := fault_of_name(name)) is not None:
        raise click.UsageError(fault)
    return name


def _weights(given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """The URI of each name, from ``URI`` or ``NAME=URI``; a bare URI needs exactly one model."""
    weights = {}
    for text in given:
        name, equals, uri = text.partition("=")
        if equals and name in names:
            weights[name] = uri
        elif len(names) == 1:
            weights[names[0]] = text
        else:
            raise click.UsageError(f"which model has the weights {text!r}? write --weights NAME=URI")
    return weights


def _devices(given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """The device of each name, from ``NAME=DEVICE``; a bare DEVICE is that of all for which no other one is named."""
    named: dict[str, str] = {}
    bare: list[str] = []
    for text in given:
        name, equals, address = text.partition("=")
        if equals and name in names:
            named[name] = address
        elif equals and names and not {":", "?"} & {*name}:  # else the "=" is one of the address
            there = f"there {'is' if len(names) == 1 else 'are'} {', '.join(names)}{did_you_mean(name, names)}"
            raise click.UsageError(f"--device {text}: no model {name!r}; {there}")
        else:
            bare.append(text)
    if len(bare) > 1:
        raise click.UsageError(f"which models use the device {bare[1]!r}? write --device NAME=DEVICE")
    return {name: named.get(name, bare[0]) for name in names} if bare else named


def spec_of(name: str, settings: Settings) -> ModelSpec:
    """The model's specification for its worker, its target resolved to an importable module and a folder."""
    from dumbwaiter.models.contract import ModelSpec  # noqa: PLC0415 - only for those who run a model

    model = settings.models[name]
    if model.target is None:
        raise ConfigError(f'models.{name} has no target; write target = "MODULE:CLASS"')
    target, project = resolve(model.target, Path(model.project or settings.home))
    return ModelSpec(
        name=name,
        target=target,
        weights=model.weights,
        project=str(project),
        max_batch=model.max_batch,
        latency_target=model.latency_target,
        max_pixels=model.max_pixels,
        timeout=model.timeout,
        max_deliveries=model.max_deliveries,
        decode_threads=model.decode_threads,
        parameters=model.parameters,
    )


def terms_of(spec: ModelSpec, settings: Settings) -> Terms:
    """On which terms the worker of *spec* shares its device; the defaults where *settings* do not have its model."""
    from dumbwaiter.devices.sharing import Terms  # noqa: PLC0415 - as above

    model = settings.models.get(spec.name, ModelSettings())
    return Terms(
        model=spec.name,
        device=model.device,
        ledgers=ledgers_folder(settings),
        footprints=Path(settings.footprints),
        weight=model.weight,
        footprint=model.footprint,
        park_after=model.park_after,
        target=spec.target,
        weights=spec.weights,
        project=spec.project,
        parameters=spec.parameters,
    )


def resolve(target: str, folder: Path) -> tuple[str, Path]:
    """``module:Class`` and the folder to import it from. A file within a package is imported as part of it."""
    module, _, class_name = target.rpartition(":")
    if not _DOTTED.fullmatch(class_name):
        raise ConfigError(f"{target!r}: {class_name!r} cannot name a class; write MODULE:CLASS")
    if not module.endswith(".py") and "/" not in module:
        if not _DOTTED.fullmatch(module):
            raise ConfigError(f"{target!r}: {module!r} cannot name a module; write MODULE:CLASS or FILE.py:CLASS")
        return f"{module}:{class_name}", folder
    file = (folder / Path(module).expanduser()).resolve()
    if not file.is_file() or file.suffix != ".py":
        raise ConfigError(f"{target!r}: no Python file at {file}")
    parts = [file.stem]
    project = file.parent
    while (project / "__init__.py").exists():
        parts.insert(0, project.name)
        project = project.parent
    return f"{'.'.join(parts)}:{class_name}", project
