"""Where workers that share a GPU say what they hold of it: a volume of the pod, or a folder of the node. Pure."""

from __future__ import annotations

from typing import Any

from dumbwaiter.deploy import places
from dumbwaiter.deploy.kubernetes.pods import container_security
from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.deploy.models import Model

Object = dict[str, Any]
FOLDER = f"{places.LEDGERS}/dumbwaiter"
_SIZE = "16Mi"


def volumes(project: Project) -> list[Object]:
    """All containers of the pod have it, or with node_ledgers all pods of the node."""
    folder = project.kubernetes.node_ledgers
    if folder is None:
        # In memory: what a ledger says means nothing after the pod's end, and its file is mapped and written often.
        return [{"name": "ledgers", "emptyDir": {"medium": "Memory", "sizeLimit": _SIZE}}]
    return [{"name": "ledgers", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}]


def mounts() -> list[Object]:
    """Where it is seen."""
    return [{"name": "ledgers", "mountPath": places.LEDGERS}]


def preparing(project: Project, model: Model) -> Object:
    """What makes a folder of the node ours: Kubernetes makes it root's, and a worker is not root."""
    if project.kubernetes.node_ledgers is None or project.gpu_mode(model) == "none":
        return {}
    security = container_security()
    return {
        "initContainers": [
            {
                "name": "ledgers",
                "image": project.kubernetes.image,
                "command": ["chown", f"{places.USER}:{places.USER}", places.LEDGERS],
                "resources": {
                    "requests": {"cpu": "10m", "memory": "32Mi"},
                    "limits": {"memory": "32Mi"},
                },
                "securityContext": {
                    **security,
                    "runAsNonRoot": False,
                    "runAsUser": 0,
                    "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
                },
                "volumeMounts": mounts(),
            }
        ]
    }
