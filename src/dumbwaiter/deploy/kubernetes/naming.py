"""Names that Kubernetes takes, and the labels by which objects find each other. Pure."""

from __future__ import annotations

import re
from typing import Any

from dumbwaiter.deploy.models import object_name

Labels = dict[str, str]
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def labels(component: str, model: str | None = None) -> Labels:
    """Those of all objects of a *component*, and of *model*."""
    found = {"app.kubernetes.io/part-of": "dumbwaiter", **selector(component, model)}
    if model is not None and _LABEL.fullmatch(model):
        found["dumbwaiter/model"] = model
    return found


def selector(component: str, model: str | None = None) -> Labels:
    """What pods of *component* and *model* have and no others: it never changes, or a Deployment could not be."""
    found = {"app.kubernetes.io/name": "dumbwaiter", "app.kubernetes.io/component": component}
    return found if model is None else {**found, "app.kubernetes.io/instance": object_name(model)}


def metadata(name: str, namespace: str, component: str, model: str | None = None) -> dict[str, Any]:
    """The head of an object."""
    return {"name": name, "namespace": namespace, "labels": labels(component, model)}
