"""The namespace that everything is in. Pure."""

from __future__ import annotations

from typing import Any

from dumbwaiter.deploy.kubernetes.naming import labels
from dumbwaiter.deploy.kubernetes.project import Project


def namespace(project: Project) -> dict[str, Any]:
    """With the strictest standard for pods that ours keep; a folder of the node's is beyond it."""
    level = "privileged" if project.kubernetes.node_ledgers else "restricted"
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": project.namespace,
            "labels": {**labels("namespace"), "pod-security.kubernetes.io/enforce": level},
        },
    }
