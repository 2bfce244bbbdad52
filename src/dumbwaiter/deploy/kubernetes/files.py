"""The files of a rendered project, by name: objects, kustomization, README. Pure."""

from __future__ import annotations

from dumbwaiter.deploy import yaml
from dumbwaiter.deploy.folders import GIT_IGNORES
from dumbwaiter.deploy.kubernetes import readme, secrets
from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.deploy.kubernetes.rendering import SECRET_FILE, rendered, secret_entries


def files(project: Project) -> dict[str, str]:
    """Name and text of each. Raises ConfigError for what cannot be rendered."""
    objects = rendered(project)
    found = {each.file: yaml.document(each.object, each.notes) for each in objects}
    entries = secret_entries(project)
    if entries:
        why = "What belongs here is never rendered. README.md says how to make it."
        notes: dict[yaml.Path, str] = {("stringData",): why}
        found[SECRET_FILE] = yaml.document(secrets.template(project, entries), notes)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": project.namespace,
        "resources": [each.file for each in objects],
    }
    found["kustomization.yaml"] = yaml.document(kustomization)
    found["README.md"] = readme.text(project, entries)
    found[".gitignore"] = GIT_IGNORES
    return found
