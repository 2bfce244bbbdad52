"""What a reader of the rendered files should know, by kind of object and place in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from dumbwaiter.deploy import leaving
from dumbwaiter.deploy.kubernetes import times
from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.deploy.models import Model
from dumbwaiter.deploy.yaml import Path

NOTES: Mapping[str, Mapping[Path, str]] = {
    "Role": {
        (
            "rules",
        ): "Each worker says what ending it would cost (controller.kubernetes.io/pod-deletion-cost), so that the busy "
        'are ended last. RBAC knows neither annotations nor "its own pod": the ValidatingAdmissionPolicy does.',
    },
    "ValidatingAdmissionPolicy": {
        (
            "spec",
            "failurePolicy",
        ): "Without it a worker, and so whoever's model runs in it, could change the image of any pod here.",
    },
    "NetworkPolicy": {
        ("spec",): "It holds only where the cluster's network enforces policies.",
    },
    "PodDisruptionBudget": {
        (
            "spec",
            "maxUnavailable",
        ): "Not minAvailable, which would keep a node with the last gateway from ever being drained.",
    },
    "ScaledObject": {
        (
            "spec",
            "cooldownPeriod",
        ): "KEDA ends all workers at once, so long after the last sign of work, and none before.",
        (
            "spec",
            "initialCooldownPeriod",
        ): "A new model keeps its first worker so long: it makes the queue, and is measured.",
        ("spec", "fallback"): "When nobody can tell how much waits, nobody is sent away.",
        (
            "spec",
            "advanced",
            "horizontalPodAutoscalerConfig",
            "behavior",
            "scaleDown",
        ): "The HPA chooses whom to end, by"
        " pod-deletion-cost; the longer it waits, the fewer are ended that the next burst calls back.",
    },
    "ResourceClaimTemplate": {
        ("spec",): "Each pod claims one GPU, and all its containers use it; nobody else gets it meanwhile.",
    },
}


def of_worker(project: Project, model: Model) -> dict[Path, str]:
    """What there is to say of a worker's Deployment."""
    notes: dict[Path, str] = {
        (
            "spec",
            "strategy",
        ): "A new worker gets the GPU of an old one; there may be no other. Meanwhile requests wait in the queue.",
        ("spec", "template", "spec", "terminationGracePeriodSeconds"): _grace(project, model),
    }
    if model.settings.scaling.is_on:
        notes["spec",] = "No replicas: KEDA says how many. The first apply starts one."
    if project.workers_in_pod(model) > 1:
        notes["spec", "template", "spec", "containers"] = "They share a GPU: each says in the ledger what it holds."
    if project.kubernetes.node_ledgers is not None and project.gpu_mode(model) != "none":
        notes["spec", "template", "spec", "initContainers"] = (
            "Kubernetes makes the folder root's. This is the only container that runs as root, and all that it may do"
            " is to chown."
        )
    return notes


def _grace(project: Project, model: Model) -> str:
    needed = leaving.grace(model, project.settings.worker.grace)
    if leaving.grace(model, project.settings.worker.grace, times.notice(project, model)) < needed:
        return f"The node says so late that it is taken back: {needed} s would be needed. What is not done goes back."
    if model.measured.long_batch is None:
        return "Nothing was measured yet, so a batch may take the model's timeout. Render again once workers have run."
    measured = model.measured
    return (
        f"999 of 1,000 batches took at most {measured.long_batch:.3g} s, loading {measured.load_seconds:.3g} s;"
        " a batch gets four fifths of a worker's grace."
    )
