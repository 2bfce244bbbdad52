"""The settings that the pods read: what differs from the defaults, with paths of the image and nothing secret. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from dumbwaiter.config import ModelSettings
from dumbwaiter.deploy.kubernetes import ledgers, places, workers
from dumbwaiter.deploy.kubernetes.naming import metadata
from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.deploy.kubernetes.toml import document

_ELSEWHERE = frozenset({"broker", "home", "models", "kubernetes", "scaling"})
"""The broker comes as a variable, and of scaling each model has its own already."""
_TABLES = ("gateway", "worker", "courier", "outbound", "scaler")


def config_map(project: Project) -> dict[str, Any]:
    """The file as an object."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata("settings", project.namespace, "settings"),
        "data": {"dumbwaiter.toml": document(tree(project))},
    }


def tree(project: Project) -> dict[str, Any]:
    """All settings that are told, as a tree."""
    settings = project.settings
    found = _changed(settings, skip=_ELSEWHERE | set(_TABLES))
    found |= {**workers.state_folders(), "ledgers": ledgers.FOLDER, "heartbeat": places.HEARTBEAT, "log_format": "json"}
    if settings.blobs.startswith("file:"):
        found["blobs"] = f"file:{places.BLOBS}/blobs"
    for name in _TABLES:
        table = _changed(getattr(settings, name), skip={"signing_key", "host", "port", "grpc_port", "http_port"})
        if name == "gateway":
            table |= {"host": "0.0.0.0", "port": places.GATEWAY_PORT}  # noqa: S104 - a pod's address
        if table:
            found[name] = table
    found["models"] = {model.name: _model(model.settings, project) for model in project.models}
    return found


def _model(model: ModelSettings, project: Project) -> dict[str, Any]:
    table = _changed(model, skip={"scaling"})
    if model.device == "auto" and project.kubernetes.gpu == "none":
        table["device"] = "none"
    scaling = _changed(model.scaling)
    return {**table, **({"scaling": scaling} if scaling else {})}


def _changed(struct: msgspec.Struct, *, skip: set[str] | frozenset[str] = frozenset()) -> dict[str, Any]:
    """Fields of *struct* that are not as they would be anyway."""
    usual = type(struct)()
    values: Mapping[str, Any] = {name: getattr(struct, name) for name in struct.__struct_fields__ if name not in skip}
    return {name: value for name, value in values.items() if value is not None and value != getattr(usual, name)}
