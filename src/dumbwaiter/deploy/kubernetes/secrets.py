"""What is secret: which keys the Secret must have, and which variables come from it. Pure.

No value of a secret is ever rendered. A broker whose URL may hold a password comes from the Secret, whether or not it
does today.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dumbwaiter.brokers.products import product_of
from dumbwaiter.deploy import places
from dumbwaiter.deploy.kubernetes.naming import metadata
from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.urls import shown

BROKER = "broker-url"
SIGNING_KEY = "signing-key"
GOOGLE_FILE = "google-credentials.json"
_STORES = {"s3": "aws", "az": "azure", "gs": "gcp"}
"""Scheme of a blob store's URL -> the cloud that it is of."""
KEYS: Mapping[str, Sequence[str]] = {
    "aws": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "azure": ("AZURE_STORAGE_ACCOUNT_KEY",),
    "gcp": (),
}
"""Cloud -> the variables in which its clients find a key. Google's find theirs in a file."""


class Entry(NamedTuple):
    """A key of the Secret, what to put there, and which variable it becomes, if any: of the workers of *model*, or of
    all pods.
    """

    key: str
    wanted: str
    variable: str | None = None
    model: str | None = None


def hides_broker(project: Project) -> bool:
    """Whether the broker's URL comes from the Secret."""
    url = project.settings.broker
    product = product_of(url)
    if not product.has_password and "@" not in url:
        return False
    return not (product.cloud == project.kubernetes.identity and shown(url) == url)


def entries(project: Project) -> list[Entry]:
    """All keys that the pods want; those of native triggers come on top."""
    found = []
    if hides_broker(project):
        found.append(
            Entry(BROKER, f"the broker's URL, with its password: {shown(project.settings.broker)}", "DUMBWAITER_BROKER")
        )
    names: dict[str, None] = {}
    for cloud in _keyed(project):
        names |= dict.fromkeys(KEYS[cloud])
    found += [Entry(name, f"the value of {name}", name) for name in names]
    if has_google_file(project):
        found.append(Entry(GOOGLE_FILE, "the JSON file of a service account's key"))
    if project.settings.gateway.signing_key is not None:
        found.append(Entry(SIGNING_KEY, "gateway.signing_key", "DUMBWAITER_GATEWAY__SIGNING_KEY"))
    return found + _hidden(project, {entry.variable for entry in found})


def _hidden(project: Project, known: set[str | None]) -> list[Entry]:
    """What of the settings may be secret, by the variables that give it."""
    return [
        Entry(hidden.variable, f"the value of {hidden.setting}, as a variable says it", hidden.variable, hidden.model)
        for hidden in project.hidden
        if hidden.variable not in known
    ]


def env(project: Project, model: str | None = None) -> list[dict[str, Any]]:
    """The variables that come from the Secret: those of all pods, or those that workers of *model* have besides."""
    found = [
        {
            "name": entry.variable,
            "valueFrom": {"secretKeyRef": {"name": project.kubernetes.secret, "key": entry.key}},
        }
        for entry in entries(project)
        if entry.variable is not None and entry.model == model
    ]
    if model is not None:
        return found
    if has_google_file(project):
        found.append({"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": f"{places.GOOGLE}/credentials.json"})
    return found


def has_google_file(project: Project) -> bool:
    """Whether Google's clients are given a key as a file."""
    return "gcp" in _keyed(project)


def template(project: Project, wanted: Sequence[Entry]) -> dict[str, Any]:
    """A Secret that names what belongs there, and has nothing of it."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(project.kubernetes.secret, project.namespace, "settings"),
        "type": "Opaque",
        "stringData": {entry.key: f"<{entry.wanted}>" for entry in wanted},
    }


def _keyed(project: Project) -> list[str]:
    """The clouds of store and broker whose keys the pods need: where identities are not used, nor is a key in a URL."""
    product = product_of(project.settings.broker)
    clouds = (_STORES.get(project.settings.blobs.partition(":")[0]), None if product.has_password else product.cloud)
    return [cloud for cloud in clouds if cloud is not None and cloud != project.kubernetes.identity]
