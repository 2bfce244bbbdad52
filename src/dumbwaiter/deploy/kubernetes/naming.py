"""Names that Kubernetes takes, and the labels by which objects find each other. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Any

Labels = dict[str, str]
_LONGEST = 63
_LONGEST_MODEL = 45
"""So that Kubernetes has room for what it puts behind a Deployment's name, and we for what stands before."""
_GOOD = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def object_name(model: str) -> str:
    """*model* in small letters, digits and dashes. One that must be changed ends in a digest, so that two stay two."""
    if len(model) <= _LONGEST_MODEL and _GOOD.fullmatch(model):
        return model
    digest = hashlib.sha256(model.encode()).hexdigest()[:8]
    written = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[: _LONGEST_MODEL - 9].strip("-")
    return f"{written or 'model'}-{digest}"


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
