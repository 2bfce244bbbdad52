"""The settings that the pods read: what differs from the defaults, with paths of the image and nothing secret. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from dumbwaiter.config import ScalerSettings
from dumbwaiter.deploy import places
from dumbwaiter.deploy.kubernetes import ledgers, workers
from dumbwaiter.deploy.kubernetes.naming import metadata
from dumbwaiter.deploy.kubernetes.project import CERTIFICATES, Project
from dumbwaiter.deploy.moving import Place, settings_tree
from dumbwaiter.deploy.toml import document

_EVERYWHERE = "0.0.0.0"  # noqa: S104 - a pod's; who may reach it is said by a NetworkPolicy
_SCALER = {"host": _EVERYWHERE, "grpc_port": places.SCALER_PORT, "http_port": places.SCALER_HTTP_PORT}


def config_map(project: Project) -> dict[str, Any]:
    """The file as an object. Raises ConfigError for what cannot be in a pod."""
    settings = project.settings
    if not project.has_scaler:  # nobody reads its table
        settings = msgspec.structs.replace(settings, scaler=ScalerSettings())
    tree = settings_tree(settings, place_of(project))
    tree.pop("broker", None)  # it comes as a variable
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata("settings", project.namespace, "settings"),
        "data": {"dumbwaiter.toml": document(tree)},
    }


def place_of(project: Project) -> Place:
    """Where things lie in a pod."""
    listens = {"gateway": {"host": _EVERYWHERE, "port": places.GATEWAY_PORT}}
    if project.has_scaler:
        listens["scaler"] = _SCALER
    return Place(
        project=places.PROJECT,
        settings=f"{places.SETTINGS}/dumbwaiter.toml",
        data=places.BLOBS,
        ledgers=ledgers.FOLDER,
        certificates=CERTIFICATES,
        folders=workers.state_folders(),
        listens=listens,
        usual={"log_format": "json"},
        gpus="none" if project.kubernetes.gpu == "none" else "given",
    )
