"""Times that Kubernetes and KEDA are told: from what was measured, and what is right while nothing was. Pure."""

from __future__ import annotations

import math

from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.deploy.models import Model
from dumbwaiter.policies.keda import LEAST_WINDOW, KedaTimes, cold_start_of, keda_times


def cold_start(project: Project, model: Model) -> float:
    """Seconds from ordering a worker to its first batch. What workers measured, perhaps elsewhere, begins when their
    node and image are there.
    """
    return cold_start_of(
        model.settings.scaling.cold_start, boot=project.kubernetes.boot, measured=model.measured.cold_start
    )


def notice(project: Project, model: Model) -> float | None:
    """How long before its end the node of *model*'s workers says so, if it may be taken back."""
    return None if project.gpu_mode(model) == "none" else project.kubernetes.notice


def of_keda(project: Project, model: Model) -> KedaTimes:
    """What the ScaledObject says, as ``dumbwaiter plan`` simulates it too."""
    scaling = model.settings.scaling
    return keda_times(
        polling_interval=project.kubernetes.polling_interval,
        scale_in_after=scaling.scale_in_after,
        idle_after=scaling.idle_after,
        cold_start=cold_start(project, model),
    )


def first_cooldown(project: Project, model: Model) -> int:
    """So long a new model keeps the worker that its Deployment begins with: it makes the queue, and is measured."""
    return math.ceil(max(LEAST_WINDOW, 2 * cold_start(project, model)))


def progress_deadline(project: Project, model: Model, load_timeout: float) -> int:
    """After how many seconds without a new ready worker a roll-out has failed."""
    return math.ceil(max(600.0, load_timeout, cold_start(project, model))) + LEAST_WINDOW
