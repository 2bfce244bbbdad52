"""What of the objects is a value of the chart, and where in them it is put. Pure.

Texts (namespace, image, host) are rendered as marks that no text of the project contains, and a mark is replaced
wherever it stands; numbers, resources and lists are replaced at their paths.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.deploy.yaml import Raw

Object = dict[str, Any]

_EXPRESSIONS: Mapping[str, str] = {
    "namespace": ".Release.Namespace",
    "image": ".Values.image",
    "secret": ".Values.secret",
    "keda_namespace": ".Values.kedaNamespace",
    "host": ".Values.ingress.host",
}
"""A setting that is a text, and the expression that it becomes."""
Marks = Mapping[str, str]
"""What stands for a text, and the setting that it stands for."""
_OPEN, _CLOSE = "\x02", "\x03"
"""What stands for the braces of an expression until all others were escaped: no YAML holds either."""


def marks_of(project: Project) -> Marks:
    """Marks that are nowhere in *project*, whatever somebody has written there."""
    text = repr(project)
    begins = (
        f"mark-{hashlib.sha256(f'{number} {text}'.encode(errors='surrogatepass')).hexdigest()[:16]}"
        for number in itertools.count()
    )
    begin = next(one for one in begins if one not in text)
    return {f"{begin}-{place}": setting for place, setting in enumerate(_EXPRESSIONS)}


def with_marks(project: Project, marks: Marks) -> Project:
    """*project* with *marks* for the texts that are values."""
    table = msgspec.structs.replace(project.kubernetes, **{setting: mark for mark, setting in marks.items()})
    settings = msgspec.structs.replace(project.settings, kubernetes=table)
    return msgspec.structs.replace(project, settings=settings)


def with_expressions(text: str, marks: Marks) -> str:
    """*text* of a template: what Helm would read as its own is escaped, and *marks* become expressions."""
    text = text.replace("{{", '{{ "{{" }}').replace(_OPEN, "{{").replace(_CLOSE, "}}")
    for mark, setting in marks.items():
        expression = _EXPRESSIONS[setting]
        # Alone it is quoted, for a name may look like a number, and a host begin with a *.
        text = re.sub(rf"(?m)(?<=: |- ){mark}$", f"{{{{ {expression} | quote }}}}", text)
        text = text.replace(mark, f"{{{{ {expression} }}}}")
    return text


def parameterised(project: Project, found: Object) -> tuple[Object, Object]:
    """*found* with expressions for what are values, and those values, by where they stand in values.yaml."""
    changed = copy.deepcopy(found)
    name = found["metadata"]["name"]
    model = next((one for one in project.models if one.object_name == name), None)
    if found["kind"] == "ScaledObject" and model is not None:
        return changed, {
            "models": {model.name: _scaled(changed["spec"], f"(index .Values.models {_quoted(model.name)})")}
        }
    if found["kind"] == "Deployment" and model is not None:
        values = _deployed(changed["spec"], f"(index .Values.models {_quoted(model.name)})", placed=True)
        return changed, {"models": {model.name: values}}
    if found["kind"] == "Deployment":
        return changed, {name: _deployed(changed["spec"], f".Values.{name}", placed=False)}
    if found["kind"] == "HorizontalPodAutoscaler":
        return changed, {name: _taken(changed["spec"], f".Values.{name}", ("minReplicas", "maxReplicas"))}
    return changed, {}


def _expression(text: str) -> Raw:
    return Raw(f"{_OPEN}{text}{_CLOSE}")


def _quoted(name: str) -> str:
    return f'"{name}"'


def _scaled(spec: Object, place: str) -> Object:
    values = _taken(spec, place, ("minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod"))
    fallback = spec["fallback"]
    values["fallbackReplicas"] = fallback["replicas"]
    fallback["replicas"] = _expression(f" {place}.fallbackReplicas ")
    return values


def _deployed(spec: Object, place: str, *, placed: bool) -> Object:
    values = _taken(spec, place, ("replicas",))
    pod = spec["template"]["spec"]
    values["resources"] = _for_all(pod["containers"], place)
    if placed:
        for name, empty in (("nodeSelector", {}), ("tolerations", [])):
            values[name] = pod.get(name, empty)
            pod[name] = _expression(f"- toYaml {place}.{name} | nindent 8 ")
        # Containers and volumes stand last, as they do without a chart.
        for name in ("containers", "volumes"):
            pod[name] = pod.pop(name)
    return values


def _for_all(containers: list[Object], place: str) -> Object:
    """The resources of *containers*, which all have the same."""
    resources: Object = containers[0]["resources"]
    for container in containers:
        container["resources"] = _expression(f"- toYaml {place}.resources | nindent 10 ")
    return resources


def _taken(table: Object, place: str, names: tuple[str, ...]) -> Object:
    """Those of *names* that *table* has; expressions stand there now."""
    values = {name: table[name] for name in names if name in table}
    for name in values:
        table[name] = _expression(f" {place}.{name} ")
    return values
