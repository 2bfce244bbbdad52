"""What all pods have in common: who runs, what may be written, where settings and secrets come from. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dumbwaiter.deploy import places
from dumbwaiter.deploy.kubernetes import secrets
from dumbwaiter.deploy.kubernetes.naming import labels
from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.errors import ConfigError

Object = dict[str, Any]
_YOURS = frozenset({"HOME", "TMPDIR"})
"""Variables that kubernetes.env may give other values."""


def pod_template(
    project: Project,
    component: str,
    containers: list[Object],
    *,
    grace: int,
    volumes: list[Object] | None = None,
    model: str | None = None,
    **more: Any,
) -> Object:
    """The template of a Deployment's pods."""
    pull = project.kubernetes.pull_secret
    return {
        "metadata": {"labels": {**labels(component, model), **_identity(project)}},
        "spec": {
            "serviceAccountName": component,
            "automountServiceAccountToken": False,
            # Else each Service puts its address into the environment of every pod.
            "enableServiceLinks": False,
            "securityContext": pod_security(),
            "terminationGracePeriodSeconds": grace,
            **({"imagePullSecrets": [{"name": pull}]} if pull else {}),
            **more,
            "containers": containers,
            "volumes": _used([*common_volumes(project), *(volumes or [])], containers),
        },
    }


def _used(volumes: list[Object], containers: list[Object]) -> list[Object]:
    """Those that a container mounts."""
    names = {mount["name"] for one in containers for mount in one["volumeMounts"]}
    return [volume for volume in volumes if volume["name"] in names]


def _identity(project: Project) -> dict[str, str]:
    """By this label Azure's webhook gives the pod its identity."""
    return {"azure.workload.identity/use": "true"} if project.kubernetes.identity == "azure" else {}


def container(
    project: Project, name: str, arguments: list[str], resources: Object, *, own: str | None = None, **more: Any
) -> Object:
    """One container. *own* is its folder of the pod's state, where it keeps something and gives signs of life."""
    env, mounts = more.pop("env", []), more.pop("mounts", [])
    state = [{"name": "state", "mountPath": places.STATE, "subPath": own}] if own else []
    alive = [{"name": "DUMBWAITER_HEARTBEAT", "value": places.HEARTBEAT}] if own else []
    variables = [*common_env(project), *alive, *env]
    _check_variables([variable["name"] for variable in variables])
    return {
        "name": name,
        "image": project.kubernetes.image,
        "command": ["dumbwaiter", *arguments],
        "workingDir": places.PROJECT,
        "env": variables,
        "resources": resources,
        "securityContext": container_security(),
        **more,
        "volumeMounts": [*common_mounts(project), *state, *mounts],
    }


def _check_variables(names: Sequence[str]) -> None:
    """Raises ConfigError where a container would have two variables of one name."""
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"kubernetes.env: {name} is a variable that pods are given anyway; leave it out")


def pod_security() -> Object:
    """Nobody is root, and system calls are those of the runtime's own list."""
    return {
        "runAsNonRoot": True,
        "runAsUser": places.USER,
        "runAsGroup": places.USER,
        "fsGroup": places.USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Object:
    """Nothing of the image can be changed, and nobody gets more rights than he starts with."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def resources(cpu: str, nbytes: int, *, scratch: int, limits: Mapping[str, Any] | None = None) -> Object:
    """Requests, and limits of what cannot be taken back: memory, disk and devices. CPU is shared out by requests."""
    fixed = {"memory": quantity(nbytes), "ephemeral-storage": quantity(scratch)}
    return {"requests": {"cpu": cpu, **fixed}, "limits": {**fixed, **(limits or {})}}


def quantity(nbytes: int) -> str:
    """*nbytes* as Kubernetes writes them, exactly."""
    for unit in ("Gi", "Mi", "Ki"):
        size = {"Gi": 1024**3, "Mi": 1024**2, "Ki": 1024}[unit]
        if nbytes % size == 0:
            return f"{nbytes // size}{unit}"
    return str(nbytes)


def common_env(project: Project) -> list[Object]:
    """Where the settings lie, what is secret in them, and what the settings add."""
    plain = {"DUMBWAITER_CONFIG": f"{places.SETTINGS}/dumbwaiter.toml", "HOME": "/tmp", "TMPDIR": "/tmp"}  # noqa: S108
    if not secrets.hides_broker(project):
        plain["DUMBWAITER_BROKER"] = project.settings.broker
    added = [text.split("=", 1) for text in project.kubernetes.env]
    given = {name for name, _ in added} & _YOURS
    return [
        *({"name": name, "value": value} for name, value in plain.items() if name not in given),
        *({"name": name, "value": value} for name, value in added),
        *secrets.env(project),
    ]


def common_volumes(project: Project) -> list[Object]:
    """Those that each pod has."""
    table = project.kubernetes
    volumes: list[Object] = [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "state", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    if table.certificates:
        volumes.append({"name": "certificates", "secret": {"secretName": table.certificates}})
    if secrets.has_google_file(project):
        item = {"key": secrets.GOOGLE_FILE, "path": "credentials.json"}
        volumes.append({"name": "google", "secret": {"secretName": table.secret, "items": [item]}})
    if stores_files(project):
        volumes.append({"name": "blobs", "persistentVolumeClaim": {"claimName": table.storage}})
    return volumes


def common_mounts(project: Project) -> list[Object]:
    """Where they are seen."""
    mounts: list[Object] = [
        {"name": "settings", "mountPath": places.SETTINGS, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of this pod alone
    ]
    if project.kubernetes.certificates:
        mounts.append({"name": "certificates", "mountPath": places.CERTIFICATES, "readOnly": True})
    if secrets.has_google_file(project):
        mounts.append({"name": "google", "mountPath": places.GOOGLE, "readOnly": True})
    if stores_files(project):
        mounts.append({"name": "blobs", "mountPath": places.BLOBS})
    return mounts


def stores_files(project: Project) -> bool:
    """Whether the blob store is a folder, on a volume that all pods have."""
    return project.settings.blobs.startswith("file:")
