"""The Deployment of the courier, who posts webhooks and replies. Pure."""

from __future__ import annotations

from typing import Any

from dumbwaiter.deploy import leaving
from dumbwaiter.deploy.kubernetes import pods, probes
from dumbwaiter.deploy.kubernetes.naming import metadata, selector
from dumbwaiter.deploy.kubernetes.project import Project

COMPONENT = "courier"
_SCRATCH = 256 * 1024**2


def deployment(project: Project) -> dict[str, Any]:
    """Any number of them share the queue of webhooks."""
    table = project.kubernetes
    container = pods.container(
        project,
        COMPONENT,
        ["courier"],
        pods.resources(table.courier_cpu, table.courier_memory, scratch=_SCRATCH),
        own=COMPONENT,
        **probes.of_worker(),
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(COMPONENT, project.namespace, COMPONENT),
        "spec": {
            "replicas": table.courier_replicas,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector(COMPONENT)},
            "template": pods.pod_template(
                project, COMPONENT, [container], grace=leaving.termination(project.settings.courier.grace)
            ),
        },
    }
