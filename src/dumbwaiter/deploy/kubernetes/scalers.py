"""Our scaler, which KEDA asks: its Deployment and Service. Pure."""

from __future__ import annotations

from typing import Any

from dumbwaiter.deploy import leaving, places
from dumbwaiter.deploy.kubernetes import pods, probes
from dumbwaiter.deploy.kubernetes.naming import metadata, selector
from dumbwaiter.deploy.kubernetes.project import Project

Object = dict[str, Any]
COMPONENT = "scaler"
_SCRATCH = 256 * 1024**2
_GRACE = 5


def deployment(project: Project) -> Object:
    """One is enough: while it is replaced KEDA keeps what there is, by the fallback."""
    table = project.kubernetes
    container = pods.container(
        project,
        COMPONENT,
        ["scaler"],
        pods.resources(table.scaler_cpu, table.scaler_memory, scratch=_SCRATCH),
        ports=[
            {"name": "grpc", "containerPort": places.SCALER_PORT, "protocol": "TCP"},
            {"name": "http", "containerPort": places.SCALER_HTTP_PORT, "protocol": "TCP"},
        ],
        **probes.of_scaler(tls=project.scaler_has_tls),
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(COMPONENT, project.namespace, COMPONENT),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector(COMPONENT)},
            "template": pods.pod_template(project, COMPONENT, [container], grace=leaving.termination(_GRACE)),
        },
    }


def service(project: Project) -> Object:
    """Where KEDA finds it."""
    ports = {"grpc": places.SCALER_PORT, "http": places.SCALER_HTTP_PORT}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(COMPONENT, project.namespace, COMPONENT),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(COMPONENT),
            "ports": [
                {"name": name, "port": port, "targetPort": port, "protocol": "TCP"} for name, port in ports.items()
            ],
        },
    }
