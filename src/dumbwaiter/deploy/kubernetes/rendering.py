"""All objects of a project, each with the name of its file and what a reader should know. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from dumbwaiter.deploy.kubernetes import (
    accounts,
    couriers,
    gateways,
    gpus,
    namespaces,
    networks,
    scalers,
    scaling,
    secrets,
    settings_file,
    workers,
)
from dumbwaiter.deploy.kubernetes.notes import NOTES, of_worker
from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.deploy.kubernetes.triggers import Triggers, triggers_of
from dumbwaiter.deploy.models import Model
from dumbwaiter.deploy.yaml import Path

SECRET_FILE = "secret.example.yaml"  # noqa: S105 - its file
"""No part of what is applied: it has no values."""


class Rendered(msgspec.Struct, frozen=True):
    """One object, the *file* that it goes into, and *notes* by where in it they belong."""

    file: str
    object: dict[str, Any]
    notes: Mapping[Path, str] = {}


def rendered(project: Project) -> list[Rendered]:
    """Everything that is applied, in an order in which it can be. Raises ConfigError for what cannot be rendered."""
    models = [(model, _triggers(project, model)) for model in project.models]
    found = [_file(each) for each in _shared(project)]
    for model, triggers in models:
        found.append(_file(workers.deployment(project, model), of_worker(project, model)))
        if triggers is not None:
            notes: dict[Path, str] = {}
            if triggers.native is not None:
                notes["spec", "triggers"] = triggers.native.note
            found.append(_file(scaling.scaled_object(project, model, triggers), notes))
    native = next((triggers.native for _, triggers in models if triggers is not None and triggers.native), None)
    if native is not None and native.logs_in:
        found.append(_file(scaling.authentication(project, native)))
    return found


def secret_entries(project: Project) -> list[secrets.Entry]:
    """What the Secret must hold."""
    more: dict[str, secrets.Entry] = {}
    for model in project.models:
        triggers = _triggers(project, model)
        if triggers is not None and triggers.native is not None:
            more |= {entry.key: entry for entry in triggers.native.entries}
    return [*secrets.entries(project), *more.values()]


def _triggers(project: Project, model: Model) -> Triggers | None:
    return triggers_of(project, model) if model.settings.scaling.is_on else None


def _shared(project: Project) -> Iterator[dict[str, Any]]:
    """What does not belong to one model."""
    yield namespaces.namespace(project)
    for component in accounts.components(project):
        yield accounts.account(project, component)
    yield accounts.role(project)
    yield accounts.binding(project)
    yield accounts.policy(project)
    yield accounts.policy_binding(project)
    yield settings_file.config_map(project)
    yield networks.closed(project)
    yield networks.to_gateway(project)
    yield networks.outward(project)
    yield gateways.deployment(project)
    yield gateways.service(project)
    yield gateways.budget(project)
    if project.kubernetes.gateway_max_replicas:
        yield gateways.autoscaler(project)
    if project.kubernetes.host:
        yield gateways.ingress(project)
    yield couriers.deployment(project)
    if project.has_scaler:
        yield scalers.deployment(project)
        yield scalers.service(project)
        if project.scaler_has_tls:
            yield scaling.scaler_authority(project)
        yield networks.to_scaler(project)
    if gpus.needs_claim_template(project):
        yield gpus.claim_template(project)


def _file(each: dict[str, Any], more: Mapping[Path, str] | None = None) -> Rendered:
    kind, name = each["kind"], each["metadata"]["name"]
    written = "".join(f"-{char.lower()}" if char.isupper() else char for char in kind).strip("-")
    return Rendered(f"{written}-{name}.yaml", each, {**NOTES.get(kind, {}), **(more or {})})
