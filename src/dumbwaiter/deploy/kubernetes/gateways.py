"""The gateway: its Deployment, Service, Ingress, autoscaler and disruption budget. Pure."""

from __future__ import annotations

from typing import Any

from dumbwaiter.deploy import leaving, places
from dumbwaiter.deploy.kubernetes import pods, probes
from dumbwaiter.deploy.kubernetes.naming import metadata, selector
from dumbwaiter.deploy.kubernetes.project import Project

Object = dict[str, Any]
COMPONENT = "gateway"
_SCRATCH = 1024**3
_BUSY = 70
"""Per cent of the CPU that is asked for, above which there should be another gateway."""
_LEAVING = 5
"""Seconds in which load balancers hear that a gateway goes, before it does."""


def deployment(project: Project) -> Object:
    """Any number of them: none knows of another."""
    table, options = project.kubernetes, project.settings.gateway
    replicas = {} if table.gateway_max_replicas else {"replicas": table.gateway_replicas}
    container = pods.container(
        project,
        COMPONENT,
        ["gateway"],
        pods.resources(table.gateway_cpu, table.gateway_memory, scratch=_SCRATCH),
        ports=[{"name": "http", "containerPort": places.GATEWAY_PORT, "protocol": "TCP"}],
        lifecycle={"preStop": {"sleep": {"seconds": _LEAVING}}},
        **probes.of_gateway(tls=options.certfile is not None),
    )
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(COMPONENT)},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(COMPONENT, project.namespace, COMPONENT),
        "spec": {
            **replicas,
            "revisionHistoryLimit": 3,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": selector(COMPONENT)},
            "template": pods.pod_template(
                project,
                COMPONENT,
                [container],
                grace=leaving.termination(options.grace + _LEAVING),
                topologySpreadConstraints=[spread],
            ),
        },
    }


def service(project: Project) -> Object:
    """What callers inside the cluster, and the Ingress, ask."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(COMPONENT, project.namespace, COMPONENT),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(COMPONENT),
            "ports": [{"name": "http", "port": 80, "targetPort": places.GATEWAY_PORT, "protocol": "TCP"}],
        },
    }


def ingress(project: Project) -> Object:
    """The way in from outside, by the host's name."""
    table = project.kubernetes
    head = metadata(COMPONENT, project.namespace, COMPONENT)
    if table.ingress_annotations:
        head["annotations"] = dict(text.split("=", 1) for text in table.ingress_annotations)
    backend = {"service": {"name": COMPONENT, "port": {"number": 80}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    spec: Object = {"rules": [{"host": table.host, "http": {"paths": paths}}]}
    if table.tls_secret:
        spec = {"tls": [{"hosts": [table.host], "secretName": table.tls_secret}], **spec}
    if table.ingress_class:
        spec = {"ingressClassName": table.ingress_class, **spec}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": head, "spec": spec}


def autoscaler(project: Project) -> Object:
    """More gateways while their CPUs are busy."""
    table = project.kubernetes
    target = {"type": "Utilization", "averageUtilization": _BUSY}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(COMPONENT, project.namespace, COMPONENT),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": COMPONENT},
            "minReplicas": table.gateway_replicas,
            "maxReplicas": table.gateway_max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    }


def budget(project: Project) -> Object:
    """Nodes are drained one gateway at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(COMPONENT, project.namespace, COMPONENT),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(COMPONENT)},
        },
    }
