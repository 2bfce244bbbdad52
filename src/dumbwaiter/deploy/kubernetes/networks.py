"""Who may talk to whom: nobody to anybody, but for what follows. Pure."""

from __future__ import annotations

from typing import Any

from dumbwaiter.deploy import places
from dumbwaiter.deploy.kubernetes.naming import metadata, selector
from dumbwaiter.deploy.kubernetes.project import Project

Object = dict[str, Any]
_METADATA, _METADATA_6 = "169.254.169.254/32", "fd00:ec2::254/128"
"""Where clouds give credentials to whoever asks."""


def closed(project: Project) -> Object:
    """Nobody reaches a pod here unless another policy says so."""
    return _policy(project, "closed", {"podSelector": {}, "policyTypes": ["Ingress"]})


def to_gateway(project: Project) -> Object:
    """Callers reach the gateway."""
    callers = [_namespace(name) for name in project.kubernetes.gateway_from]
    inside: list[Object] = [{"podSelector": {}}]
    rule: Object = {"ports": [_port(places.GATEWAY_PORT)]}
    if callers:
        rule = {"from": [*inside, *callers], **rule}
    pods = {"podSelector": {"matchLabels": selector("gateway")}}
    return _policy(project, "to-gateway", {**pods, "policyTypes": ["Ingress"], "ingress": [rule]})


def to_scaler(project: Project) -> Object:
    """KEDA reaches the scaler."""
    ports = [_port(places.SCALER_PORT), _port(places.SCALER_HTTP_PORT)]
    rule = {"from": [_namespace(project.kubernetes.keda_namespace)], "ports": ports}
    pods = {"podSelector": {"matchLabels": selector("scaler")}}
    return _policy(project, "to-scaler", {**pods, "policyTypes": ["Ingress"], "ingress": [rule]})


def outward(project: Project) -> Object:
    """Where pods may go: anywhere but to the machine's metadata, unless the cloud's identities are used.

    Broker and store may be anywhere; which URLs of callers may be reached is said by [outbound], by name.
    """
    others = (
        {"cidr": "0.0.0.0/0"}
        if project.kubernetes.identity != "secret"
        else {"cidr": "0.0.0.0/0", "except": [_METADATA]}
    )
    over_six = {"cidr": "::/0", **({"except": [_METADATA_6]} if "except" in others else {})}
    names = {"ports": [_port(53, "UDP"), _port(53)]}
    to: Object = {"to": [{"ipBlock": others}, {"ipBlock": over_six}, {"namespaceSelector": {}}]}
    return _policy(project, "outward", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [names, to]})


def _policy(project: Project, name: str, spec: Object) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(name, project.namespace, "network"),
        "spec": spec,
    }


def _namespace(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _port(number: int, protocol: str = "TCP") -> Object:
    return {"protocol": protocol, "port": number}
