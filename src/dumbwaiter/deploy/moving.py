"""A project's settings as they are where it is deployed: with the paths of that place, and nothing secret. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec

from dumbwaiter.config import ModelSettings, Settings
from dumbwaiter.deploy.hiding import check_urls
from dumbwaiter.errors import ConfigError
from dumbwaiter.message import MAX_QUEUE_NAME, is_queue_name
from dumbwaiter.urls import shown

_TABLES = ("gateway", "worker", "courier", "outbound", "scaler")
_ELSEWHERE = frozenset({"broker", "blobs", "home", "models", "kubernetes", "scaling", *_TABLES})
"""What is not taken over as it is; of scaling each model has its own already."""
_FILES = frozenset({"sqlite", "file"})


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where things lie: the *project* and its *settings* file, what is kept as *data*, the *ledgers* of GPUs, the file
    for signs of life (None: each process is told its own), and a folder of *certificates*, the only one from which a
    certificate may come (None: any). *listens* is where the gateway listens, if not where the settings say. *usual* is
    what holds there where the settings say nothing else.
    """

    project: str
    settings: str
    data: str
    ledgers: str
    heartbeat: str | None = None
    certificates: str | None = None
    listens: Mapping[str, Any] = {}
    usual: Mapping[str, Any] = {}


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
    if place.heartbeat is not None:
        tree["heartbeat"] = place.heartbeat
    tree |= {**place.usual, **_changed(settings, skip=_ELSEWHERE | tree.keys() | {"heartbeat"})}
    for name in _TABLES:
        table = _changed(getattr(settings, name), skip={"signing_key"})
        if name == "gateway":
            _check_certificate(table, place)
            table |= place.listens
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
        if not is_queue_name(name):
            raise ConfigError(
                f"models.{name!r} cannot be called so: write letters, digits and . _ -, a letter or digit first, at"
                f" most {MAX_QUEUE_NAME}"
            )
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


def _model(name: str, settings: Settings, place: Place) -> dict[str, Any]:
    model = settings.models[name]
    folder = inside(f"models.{name}.project", model.project or settings.home, settings.home)
    table = _changed(model, skip={"scaling", "project", "weights"})
    table["project"] = str(PurePosixPath(place.project) / folder)
    if model.weights is not None:
        table["weights"] = model.weights
        if model.weights.startswith("/"):
            weights = inside(f"models.{name}.weights", model.weights, settings.home)
            table["weights"] = str(PurePosixPath(place.project) / weights)
    scaling = _changed(model.scaling)
    return {**table, **({"scaling": scaling} if scaling else {})}


def _kept(url: str, there: str) -> str:
    """*url*, or where what it keeps in a file of this machine is kept there."""
    scheme = url.partition(":")[0]
    if scheme == "memory":
        raise ConfigError(f"{shown(url)} is one process's memory, and here are several; write another broker and blobs")
    return f"{scheme}:{there}" if scheme in _FILES else url


def _check_certificate(gateway: Mapping[str, Any], place: Place) -> None:
    if place.certificates is None:
        return
    for name in ("certfile", "keyfile"):
        path = gateway.get(name)
        if path is not None and not path.startswith(f"{place.certificates}/"):
            raise ConfigError(
                f"gateway.{name} = {path!r} is not in the image; let a proxy end TLS, or mount the files there and"
                f" write {name} = {place.certificates}/FILE"
            )


def _changed(struct: msgspec.Struct, *, skip: set[str] | frozenset[str] = frozenset()) -> dict[str, Any]:
    """Fields of *struct* that are not as they would be anyway."""
    usual = type(struct)()
    values = {name: getattr(struct, name) for name in struct.__struct_fields__ if name not in skip}
    return {name: value for name, value in values.items() if value is not None and value != getattr(usual, name)}
