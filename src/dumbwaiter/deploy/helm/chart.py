"""The files of the chart. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dumbwaiter import __version__
from dumbwaiter.deploy import yaml
from dumbwaiter.deploy.folders import GIT_IGNORES
from dumbwaiter.deploy.helm.values import Marks, marks_of, parameterised, with_expressions, with_marks
from dumbwaiter.deploy.kubernetes import readme
from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.deploy.kubernetes.rendering import Rendered, rendered, secret_entries
from dumbwaiter.deploy.yaml import Notes

_VERSION = "0.1.0"
_HELM_IGNORES = f"{GIT_IGNORES}.gitignore\n"
"""Whatever else lies in a chart's folder goes to the cluster with the release."""
_NOTES: Notes = {
    ("image",): "The image with dumbwaiter and the project.",
    ("secret",): "The Secret that holds what README.md says; the chart makes none.",
    ("kedaNamespace",): "Where KEDA runs: it alone reaches the scaler.",
    ("ingress",): "The way in from outside.",
    ("models",): "How many workers each model gets, on which nodes, and with what.",
}


def files(project: Project) -> dict[str, str]:
    """Name and text of each. Raises ConfigError for what cannot be rendered."""
    table = project.kubernetes
    values: dict[str, Any] = {
        "image": table.image,
        "secret": table.secret,
        "kedaNamespace": table.keda_namespace,
        "ingress": {"enabled": table.host is not None, "host": table.host or ""},
    }
    found: dict[str, str] = {}
    marks = marks_of(project)
    for each in rendered(with_marks(project, marks)):
        if each.object["kind"] != "Namespace":  # it is there when a chart is installed
            changed, taken = parameterised(project, each.object)
            _merge(values, taken)
            found[f"templates/{_file(each, marks)}"] = _template(each, changed, marks)
    return {
        "Chart.yaml": yaml.document(_chart()),
        "values.yaml": yaml.document(values, _NOTES),
        "README.md": readme.text(project, secret_entries(project), chart=True),
        ".gitignore": GIT_IGNORES,
        ".helmignore": _HELM_IGNORES,
        **found,
    }


def _file(each: Rendered, marks: Marks) -> str:
    """Without the namespace, which is another for each release."""
    return with_expressions(each.file, marks).replace("{{ .Release.Namespace }}-", "")


def _template(each: Rendered, changed: Mapping[str, Any], marks: Marks) -> str:
    text = with_expressions(yaml.document(changed, each.notes), marks)
    if each.object["kind"] == "Ingress":
        return f"{{{{- if .Values.ingress.enabled }}}}\n{text}{{{{- end }}}}\n"
    return text


def _chart() -> dict[str, Any]:
    return {
        "apiVersion": "v2",
        "name": "dumbwaiter",
        "description": "Deep networks behind a message broker: gateway, courier, and workers that follow the work.",
        "type": "application",
        "version": _VERSION,
        "appVersion": __version__,
        "kubeVersion": ">=1.30.0-0",
    }


def _merge(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, Mapping) and isinstance(values.get(name), dict):
            _merge(values[name], value)
        else:
            values[name] = dict(value) if isinstance(value, Mapping) else value
