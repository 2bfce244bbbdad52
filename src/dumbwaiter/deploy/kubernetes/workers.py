"""The Deployment of a model's workers. Pure."""

from __future__ import annotations

from typing import Any

from dumbwaiter.deploy import leaving, places
from dumbwaiter.deploy.kubernetes import gpus, ledgers, pods, probes, secrets, times
from dumbwaiter.deploy.kubernetes.naming import metadata, selector
from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.deploy.models import Model

Object = dict[str, Any]
COMPONENT = "worker"
_COSTS = "/run/costs"
"""Where workers of one pod say what each holds."""


def deployment(project: Project, model: Model) -> Object:
    """The workers of *model*. How many there are is KEDA's business, where the model scales."""
    scaling = model.settings.scaling
    replicas = {} if scaling.is_on else {"replicas": project.pods(model, model.settings.replicas)}
    load_timeout = project.settings.worker.load_timeout
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(model.object_name, project.namespace, COMPONENT, model.name),
        "spec": {
            **replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": times.progress_deadline(project, model, load_timeout),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": selector(COMPONENT, model.name)},
            "template": _template(project, model),
        },
    }


def _template(project: Project, model: Model) -> Object:
    grace = leaving.grace(model, project.settings.worker.grace, times.notice(project, model))
    count = project.workers_in_pod(model)
    template = pods.pod_template(
        project,
        COMPONENT,
        [_container(project, model, number, grace) for number in range(1, count + 1)],
        grace=leaving.termination(grace),
        volumes=[*ledgers.volumes(project), _costs_volume()],
        model=model.name,
        **_placing(project, model),
    )
    # To say how costly it would be to end this pod; see role.
    template["spec"]["automountServiceAccountToken"] = True
    return template


def _placing(project: Project, model: Model) -> Object:
    """What stands in the pod's spec about nodes, GPUs and what comes before its containers."""
    table = project.kubernetes
    wants = project.gpu_mode(model) != "none"
    placed: Object = {}
    if wants and table.runtime_class:
        placed["runtimeClassName"] = table.runtime_class
    if wants and table.node_selector:
        placed["nodeSelector"] = dict(text.split("=", 1) for text in table.node_selector)
    tolerations = gpus.tolerations(project, model)
    if tolerations:
        placed["tolerations"] = tolerations
    return placed | gpus.claims(project, model) | ledgers.preparing(project, model)


def _container(project: Project, model: Model, number: int, grace: int) -> Object:
    table = project.kubernetes
    count = project.workers_in_pod(model)
    name = "worker" if count == 1 else f"worker-{number}"
    resources = pods.resources(
        table.worker_cpu, table.worker_memory, scratch=table.worker_scratch, limits=gpus.limits(project, model)
    )
    resources |= gpus.container_claims(project, model)
    return pods.container(
        project,
        name,
        ["worker", model.name],
        resources,
        own=name,
        env=[
            {"name": "DUMBWAITER_WORKER__GRACE", "value": str(grace)},
            *_own_pod(name, count),
            *secrets.env(project, model.name),
        ],
        mounts=[*ledgers.mounts(), *_costs_mounts(count)],
        **probes.of_worker(),
    )


def _own_pod(container: str, count: int) -> list[Object]:
    """Which pod it is, to say how costly ending it would be; with several workers, where each says its part of that."""
    fields = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}
    found: list[Object] = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()
    ]
    if count == 1:
        return found
    return [
        *found,
        {"name": "POD_CONTAINER", "value": container},
        {"name": "POD_COSTS", "value": _COSTS},
    ]


def _costs_volume() -> Object:
    # Never the folder of a node that ledgers may lie in: what is said here means nothing after the pod's end.
    return {"name": "costs", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}


def _costs_mounts(count: int) -> list[Object]:
    return [{"name": "costs", "mountPath": _COSTS}] if count > 1 else []


def state_folders() -> dict[str, str]:
    """Settings whose folders lie in a container's own state."""
    return {"slots": f"{places.STATE}/slots", "footprints": f"{places.STATE}/footprints"}
