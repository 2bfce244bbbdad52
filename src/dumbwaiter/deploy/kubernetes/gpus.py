"""How workers get GPUs: whole ones, one shared by a pod's containers, slices, or parts. Pure."""

from __future__ import annotations

from typing import Any

from dumbwaiter.deploy.kubernetes.naming import metadata
from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.deploy.models import Model

Object = dict[str, Any]
CLAIM = "shared-gpu"


def limits(project: Project, model: Model) -> dict[str, int]:
    """What the device plugin gives each container."""
    table = project.kubernetes
    mode = project.gpu_mode(model)
    if mode == "mig":
        return {f"{table.gpu_resource.partition('/')[0]}/mig-{table.mig_profile}": table.gpus}
    if mode == "exclusive":
        return {table.gpu_resource: table.gpus}
    if mode in {"time-slicing", "mps"}:
        return {table.gpu_resource: 1}
    return {}


def claims(project: Project, model: Model) -> Object:
    """A claim of the pod's, which several containers may use: a device plugin gives a GPU to one container only."""
    if project.gpu_mode(model) != "shared":
        return {}
    return {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": CLAIM}]}


def container_claims(project: Project, model: Model) -> Object:
    """That this container uses it."""
    return {"claims": [{"name": "gpu"}]} if project.gpu_mode(model) == "shared" else {}


def claim_template(project: Project) -> Object:
    """One GPU for each pod, by dynamic resource allocation (Kubernetes 1.34)."""
    request = {"name": "gpu", "exactly": {"deviceClassName": project.kubernetes.device_class, "count": 1}}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": metadata(CLAIM, project.namespace, "worker"),
        "spec": {"spec": {"devices": {"requests": [request]}}},
    }


def needs_claim_template(project: Project) -> bool:
    """Whether any model shares a GPU by claim."""
    return any(project.gpu_mode(model) == "shared" for model in project.models)


def tolerations(project: Project, model: Model) -> list[Object]:
    """The taints of GPU nodes and of those that the settings name (spot pools, say)."""
    if project.gpu_mode(model) == "none":
        return []
    of_gpu = {"key": project.kubernetes.gpu_resource, "operator": "Exists", "effect": "NoSchedule"}
    return [of_gpu, *(_toleration(text) for text in project.kubernetes.tolerations)]


def _toleration(text: str) -> Object:
    """``key``, ``key:Effect``, ``key=value:Effect``."""
    taint, _, effect = text.partition(":")
    key, equals, value = taint.partition("=")
    found: Object = {"key": key, "operator": "Equal", "value": value} if equals else {"key": key, "operator": "Exists"}
    return {**found, "effect": effect} if effect else found
