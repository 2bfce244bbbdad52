"""Who the pods are, and what they may: ServiceAccounts, and the one right that workers have. Pure."""

from __future__ import annotations

from typing import Any

from dumbwaiter.deploy.kubernetes.naming import labels, metadata
from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.worker.pod_cost import ANNOTATION as COST

Object = dict[str, Any]


def _within(first: str, second: str) -> str:
    """That *second* has all annotations of *first* as they are, but for the one that may change."""
    first, second = f"variables.{first}", f"variables.{second}"
    return f"{first}.all(key, key == '{COST}' || (key in {second} && {first}[key] == {second}[key]))"


_ROLES = {
    "aws": "eks.amazonaws.com/role-arn",
    "azure": "azure.workload.identity/client-id",
    "gcp": "iam.gke.io/gcp-service-account",
}


def _or_none(place: str) -> str:
    """What the list at *place* holds: Kubernetes leaves out one that is empty."""
    return f"(has({place}) ? {place} : [])"


_ANNOTATIONS = {"before": "oldObject.metadata.annotations", "after": "object.metadata.annotations"}
_POD = "authentication.kubernetes.io/pod-name"
_RULES = {
    f"'{_POD}' in request.userInfo.extra && request.userInfo.extra['{_POD}'][0] == request.name": (
        "a worker may patch no pod but its own"
    ),
    " && ".join(
        f"object.{place} == oldObject.{place}" for place in ("spec", "metadata.labels", "metadata.ownerReferences")
    ): f"a worker may patch nothing of its pod but the annotation {COST}",
    f"{_or_none('object.metadata.finalizers')} == {_or_none('oldObject.metadata.finalizers')}": (
        "a worker may keep no pod from being removed"
    ),
    _within("before", "after"): f"a worker may change no annotation but {COST}",
    _within("after", "before"): f"a worker may add no annotation but {COST}",
}
"""Expressions in CEL that must be true of a worker's patch, and what is said where one is not."""


def components(project: Project) -> list[str]:
    """Each has an account of its own."""
    return ["gateway", "worker", "courier", *(["scaler"] if project.has_scaler else [])]


def account(project: Project, component: str) -> Object:
    """That of *component*, with the cloud's role if identities are used."""
    table = project.kubernetes
    head = metadata(component, project.namespace, component)
    if table.identity != "secret" and table.role:
        head["annotations"] = {_ROLES[table.identity]: table.role}
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": head,
        "automountServiceAccountToken": False,
    }


def role(project: Project) -> Object:
    """To patch pods, and nothing else: not even to see them."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata("worker", project.namespace, "worker"),
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]}],
    }


def binding(project: Project) -> Object:
    """That workers have that role."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata("worker", project.namespace, "worker"),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "worker"},
        "subjects": [{"kind": "ServiceAccount", "name": "worker", "namespace": project.namespace}],
    }


def policy_name(project: Project) -> str:
    """Of two objects that have no namespace, so that theirs is in their name."""
    return f"dumbwaiter-{project.namespace}-worker"


def policy(project: Project) -> Object:
    """What RBAC cannot say: a worker patches its own pod only, and of that only what ending it would cost."""
    user = f"system:serviceaccount:{project.namespace}:worker"
    matching = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods"]}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": policy_name(project), "labels": labels("worker")},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [matching]},
            "matchConditions": [{"name": "is-a-worker", "expression": f"request.userInfo.username == '{user}'"}],
            "variables": [
                {"name": name, "expression": f"has({place}) ? {place} : {{}}"} for name, place in _ANNOTATIONS.items()
            ],
            "validations": [{"expression": rule, "message": message} for rule, message in _RULES.items()],
        },
    }


def policy_binding(project: Project) -> Object:
    """Where it holds."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": policy_name(project), "labels": labels("worker")},
        "spec": {
            "policyName": policy_name(project),
            "validationActions": ["Deny"],
            "matchResources": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": project.namespace}}
            },
        },
    }
