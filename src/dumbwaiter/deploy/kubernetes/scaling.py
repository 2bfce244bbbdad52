"""KEDA's objects: a ScaledObject for each model that scales, and what its triggers log in with. Pure."""

from __future__ import annotations

from typing import Any

from dumbwaiter.config import KubernetesSettings
from dumbwaiter.deploy.kubernetes import times
from dumbwaiter.deploy.kubernetes.naming import metadata
from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.deploy.kubernetes.triggers import Native, Triggers
from dumbwaiter.deploy.models import Model

Object = dict[str, Any]
FAILURES = 3
"""After so many failed looks in a row the fallback holds."""
AUTHORITY = "ca.crt"
"""The key of the Secret with certificates under which the authority of the scaler's own is looked for."""
_PROVIDERS = {"aws": "aws", "azure": "azure-workload", "gcp": "gcp"}


def scaled_object(project: Project, model: Model, triggers: Triggers) -> Object:
    """In the namespace of its Deployment: KEDA finds no other."""
    table = project.kubernetes
    least, most = project.bounds(model)
    told = times.of_keda(project, model)
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata(model.object_name, project.namespace, "worker", model.name),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": model.object_name},
            "pollingInterval": told.polling_interval,
            "cooldownPeriod": told.cooldown,
            "initialCooldownPeriod": times.first_cooldown(project, model),
            "minReplicaCount": least,
            "maxReplicaCount": most,
            "fallback": {
                "failureThreshold": FAILURES,
                "replicas": min(most, max(least, table.fallback_replicas)),
                "behavior": "currentReplicasIfHigher",
            },
            "advanced": {
                "horizontalPodAutoscalerConfig": {"behavior": _behavior(told.window, most)},
                **_modifiers(triggers),
            },
            "triggers": triggers.triggers,
        },
    }


def _behavior(window: int, most: int) -> Object:
    """More at once; fewer only after three cold starts, or the next burst would wait for those who were sent away."""
    everything = {"type": "Pods", "value": most, "periodSeconds": 15}
    return {
        "scaleUp": {"stabilizationWindowSeconds": 0, "policies": [everything]},
        "scaleDown": {"stabilizationWindowSeconds": window, "policies": [everything]},
    }


def _modifiers(triggers: Triggers) -> Object:
    if triggers.formula is None:
        return {}
    return {
        "scalingModifiers": {
            "formula": triggers.formula,
            "target": triggers.target,
            "activationTarget": "0",
            "metricType": "AverageValue",
        }
    }


def authentication(project: Project, native: Native) -> Object:
    """What native triggers log in with: the cloud's identity, or keys of the Secret."""
    table = project.kubernetes
    return _authentication(
        project, "broker", "worker", _by_identity(table) if native.identity else _by_secret(table, native)
    )


def scaler_authority(project: Project) -> Object:
    """By whose word KEDA believes our scaler's certificate: no public authority signs for names within a cluster."""
    ref = {"parameter": "caCert", "name": project.kubernetes.certificates, "key": AUTHORITY}
    return _authentication(project, "scaler", "scaler", {"secretTargetRef": [ref]})


def _authentication(project: Project, name: str, component: str, spec: Object) -> Object:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": metadata(name, project.namespace, component),
        "spec": spec,
    }


def _by_identity(table: KubernetesSettings) -> Object:
    # On AWS the operator takes the role of the worker's account, so that it may see no more than the worker does.
    owner = {"identityOwner": "workload"} if table.identity == "aws" else {}
    named = {"identityId": table.role} if table.identity == "azure" and table.role else {}
    return {"podIdentity": {"provider": _PROVIDERS[table.identity], **owner, **named}}


def _by_secret(table: KubernetesSettings, native: Native) -> Object:
    refs = [{"parameter": name, "name": table.secret, "key": key} for name, key in native.secrets.items()]
    certificates = table.certificates or ""
    refs += [{"parameter": name, "name": certificates, "key": key} for name, key in native.files.items()]
    return {"secretTargetRef": refs}
