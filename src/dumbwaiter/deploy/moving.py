"""A project's settings as they are where it is deployed: with the paths of that place, and nothing secret. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

import msgspec

from dumbwaiter.config import GatewaySettings, ModelSettings, ScalerSettings, Settings
from dumbwaiter.config.checking import fault_of_name
from dumbwaiter.deploy.hiding import Hidden, check_urls, without_secrets
from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

_TABLES = ("gateway", "worker", "courier", "outbound", "scaler")
_ELSEWHERE = frozenset({"broker", "blobs", "home", "models", "kubernetes", "scaling", *_TABLES})
"""What is not taken over as it is; of scaling each model has its own already."""
_FILES = frozenset({"sqlite", "file"})
_SIGNING_KEY = Hidden("gateway.signing_key", "DUMBWAITER_GATEWAY__SIGNING_KEY")
SIGNERS = "_gateway"
"""What the variables of gateway and courier are called where each model has some under its name: no model's name."""


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """The only *folder* from which a certificate may come, how its files are *put* there, and what else would do
    *instead*, by the table of the server.
    """

    folder: str
    put: str
    instead: Mapping[str, str]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where things lie: the *project* and its *settings* file, what is kept as *data*, the *ledgers* of GPUs, the file
    for signs of life (None: each process is told its own), and *certificates* (None: anywhere). *folders* are settings
    of those that do not lie with the data.

    *listens* is where the server of a table listens, if not where the settings say. *usual* is what holds there where
    the settings say nothing else. *gpus* says which of them a process sees: all of one machine, those that it is given,
    or none.
    """

    project: str
    settings: str
    data: str
    ledgers: str
    heartbeat: str | None = None
    certificates: Certificates | None = None
    folders: Mapping[str, str] = {}
    listens: Mapping[str, Mapping[str, Any]] = {}
    usual: Mapping[str, Any] = {}
    gpus: Literal["all", "given", "none"] = "all"


def opened(settings: Settings, environ: Mapping[str, str]) -> tuple[Settings, list[Hidden]]:
    """*settings* without those parameters of models that may be secret, and what no file has: these, and the signing
    key. *environ* are the variables from which settings were read. Raises ConfigError for what no variable can give.
    """
    settings, hidden = without_secrets(settings, environ)
    return settings, [*([_SIGNING_KEY] if settings.gateway.signing_key is not None else []), *hidden]


def of_signers(hidden: Sequence[Hidden]) -> list[Hidden]:
    """What gateway and courier need."""
    return [each for each in hidden if each.model is None]


def settings_tree(settings: Settings, place: Place) -> dict[str, Any]:
    """Those that differ from the defaults, as they are at *place*. A broker's URL with a password is left out.

    Raises ConfigError for what cannot be there.
    """
    tree: dict[str, Any] = {}
    check_urls(settings)
    if shown(settings.broker) == settings.broker:
        tree["broker"] = _kept(settings.broker, f"{place.data}/queue.db")
    tree["blobs"] = _kept(settings.blobs, f"{place.data}/blobs")
    tree |= {"slots": f"{place.data}/slots", "footprints": f"{place.data}/footprints", "ledgers": place.ledgers}
    tree |= place.folders
    if place.heartbeat is not None:
        tree["heartbeat"] = place.heartbeat
    tree |= {**place.usual, **_changed(settings, skip=_ELSEWHERE | tree.keys() | {"heartbeat"})}
    for name in _TABLES:
        server = getattr(settings, name)
        if name in {"gateway", "scaler"} and place.certificates is not None:
            check_certificate(name, server, place.certificates)
        table = {**_changed(server, skip={"signing_key"}), **place.listens.get(name, {})}
        if table:
            tree[name] = table
    tree["models"] = {name: _model(name, settings, place) for name in models_of(settings)}
    return tree


def models_of(settings: Settings) -> list[str]:
    """The names of those to deploy. Raises ConfigError where there are none, or one that has no class or a name that no
    queue may have.
    """
    if not settings.models:
        raise ConfigError("no model to deploy; write [models.NAME] with its target into dumbwaiter.toml")
    for name, model in settings.models.items():
        if (fault := fault_of_name(name)) is not None:
            raise ConfigError(fault)
        if model.target is None:
            raise ConfigError(f'models.{name} has no target; write target = "MODULE:CLASS"')
    return list(settings.models)


def local_weights(settings: Settings) -> Sequence[str]:
    """Files of weights within the project, relative to it. Raises ConfigError for those that lie elsewhere."""
    found: dict[str, None] = {}
    for name, model in settings.models.items():
        if model.weights is not None and model.weights.startswith("/"):
            found[inside(f"models.{name}.weights", model.weights, settings.home)] = None
    return list(found)


def inside(what: str, path: str, home: str) -> str:
    """*path* relative to the project *home*. Raises ConfigError where it lies outside."""
    try:
        return str(PurePosixPath(path).relative_to(home))
    except ValueError:
        raise ConfigError(
            f"{what}: {path} lies outside of the project {home}, so it is not deployed with it; move it there, or write"
            " a URI"
        ) from None


def wants_gpu(model: ModelSettings) -> bool:
    """Whether its workers are to get one."""
    return model.device.partition(":")[0] not in {"none", "host", "fake"}


def check_certificate(what: str, server: GatewaySettings | ScalerSettings, there: Certificates) -> None:
    """Raises ConfigError where *server*, whose table is *what*, would not find its certificate and the key of it."""
    paths = {"certfile": server.certfile, "keyfile": server.keyfile}
    for name, path in paths.items():
        if path is not None and not path.startswith(f"{there.folder}/"):
            raise ConfigError(
                f"{what}.{name} = {path!r} lies on this machine; {there.instead[what]}, or {there.put} and write"
                f" {name} = {there.folder}/FILE"
            )
    missing = [name for name, path in paths.items() if path is None]
    if len(missing) == 1:
        raise ConfigError(f"TLS takes a certificate and its private key: {what}.{missing[0]} is not set")


def _model(name: str, settings: Settings, place: Place) -> dict[str, Any]:
    model = settings.models[name]

    def moved(what: str, path: str) -> str:
        return str(PurePosixPath(place.project) / inside(f"models.{name}.{what}", path, settings.home))

    weights = model.weights
    there = msgspec.structs.replace(
        model,
        project=moved("project", model.project or settings.home),
        weights=moved("weights", weights) if weights is not None and weights.startswith("/") else weights,
        device=_device(f"models.{name}.device", model, place),
    )
    scaling = _changed(model.scaling)
    return {**_changed(there, skip={"scaling"}), **({"scaling": scaling} if scaling else {})}


def _device(what: str, model: ModelSettings, place: Place) -> str:
    """The device of *model* as it is there: whoever is given a GPU counts his own, from 0."""
    if place.gpus == "all" or not wants_gpu(model):
        return model.device
    if place.gpus == "none":
        return "none"
    kind, _, name = model.device.partition(":")
    if name.startswith(("GPU-", "MIG-")):
        raise ConfigError(
            f"{what} = {model.device!r} is one GPU of this machine, and there each worker is given some; write"
            ' device = "cuda"'
        )
    return kind


def _kept(url: str, there: str) -> str:
    """*url*, or where what it keeps in a file of this machine is kept there."""
    scheme = url.partition(":")[0]
    if scheme == "memory":
        raise ConfigError(f"{shown(url)} is one process's memory, and here are several; write another broker and blobs")
    return f"{scheme}:{there}" if scheme in _FILES else url


def _changed(struct: msgspec.Struct, *, skip: set[str] | frozenset[str] = frozenset()) -> dict[str, Any]:
    """Fields of *struct* that are not as they would be anyway."""
    usual = type(struct)()
    values = {name: getattr(struct, name) for name in struct.__struct_fields__ if name not in skip}
    return {name: value for name, value in values.items() if value is not None and value != getattr(usual, name)}
