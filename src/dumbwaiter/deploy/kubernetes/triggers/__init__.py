"""How KEDA hears how many workers a model should have: our scaler in two ways, or the broker's own counts.

A native trigger counts messages, waiting and in flight, in the lanes of a queue as the broker's adapter keeps them; the
names are made by the adapters' own functions. Adding one: its file, and a line in NATIVE.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

from dumbwaiter.brokers import CLIENTS, DISTRIBUTIONS
from dumbwaiter.config import KubernetesSettings
from dumbwaiter.deploy.kubernetes.project import Project
from dumbwaiter.deploy.kubernetes.triggers.shape import Native, Trigger, Triggers
from dumbwaiter.deploy.models import Model
from dumbwaiter.deploy.places import SCALER_HTTP_PORT, SCALER_PORT
from dumbwaiter.errors import ConfigError, MissingExtraError
from dumbwaiter.urls import shown

__all__ = ["Native", "Triggers", "triggers_of"]

_HERE = "dumbwaiter.deploy.kubernetes.triggers"
#: URL scheme of a broker -> the module that knows its native trigger.
NATIVE = {
    **dict.fromkeys(("redis", "rediss", "valkey"), "redis"),
    **dict.fromkeys(("amqp", "amqps"), "rabbitmq"),
    **dict.fromkeys(("nats", "tls"), "nats"),
    **dict.fromkeys(("pulsar", "pulsar+ssl"), "pulsar"),
    "sqs": "sqs",
    "servicebus": "servicebus",
    "pubsub": "pubsub",
}
#: Those that KEDA has a trigger for which cannot read our queues.
UNREADABLE = {
    "kafka": "KEDA's apache-kafka trigger reads the lag of a consumer group, and our queues on Kafka have none: who"
    " holds what is in their ledger (docs/brokers/kafka.md)",
}


def triggers_of(project: Project, model: Model) -> Triggers:
    """Those of *model*. Raises ConfigError where the broker's own counts are wanted and cannot be read."""
    each = project.workers_in_pod(model)
    if project.kubernetes.trigger == "native":
        return _native(project, model, each)
    host = f"scaler.{project.namespace}.svc"
    name, seconds = _coming(project, model)
    if project.kubernetes.trigger == "metrics-api":
        metadata = {
            "url": f"http://{host}:{SCALER_HTTP_PORT}/v1/scale/{model.name}?{name}={seconds}",
            "format": "json",
            "valueLocation": "desired",
            "targetValue": str(each),
            "activationTargetValue": "0",
        }
        return Triggers([_trigger("workers", "metrics-api", metadata)])
    metadata = {"scalerAddress": f"{host}:{SCALER_PORT}", "model": model.name, name: seconds}
    if each > 1:
        # Not by a formula: with one KEDA asks whether its value is above 0, and no more whether the pool is active.
        metadata["workers_each"] = str(each)
    if not project.scaler_has_tls:
        return Triggers([_trigger("workers", "external-push", metadata)])
    trigger = _trigger("workers", "external-push", {**metadata, "enableTLS": "true"})
    return Triggers([{**trigger, "authenticationRef": {"name": "scaler"}}])


def _coming(project: Project, model: Model) -> tuple[str, str]:
    """What our scaler is told of how long workers take to come: a cold start that is set, or what comes before their
    own start. That is measured again and again, so no number of today's may stand in its place.
    """
    told = model.settings.scaling.cold_start
    name, seconds = ("boot", project.kubernetes.boot) if told is None else ("cold_start", told)
    return name, f"{math.ceil(seconds)}s"


def _native(project: Project, model: Model, each: int) -> Triggers:
    url = project.settings.broker
    queue, target = model.name, _whole(model, each)
    scheme = url.partition(":")[0]
    instead = 'write kubernetes.trigger = "external-push" or "metrics-api": they count with our own adapter'
    if scheme not in NATIVE:
        why = UNREADABLE.get(scheme, f"KEDA has no trigger for queues on {scheme}:")
        raise ConfigError(f'kubernetes.trigger = "native" with {shown(url)}: {why}; {instead}')
    found = _reader(NATIVE[scheme])(url, queue, target, project.kubernetes)
    for trigger in found.triggers:
        _check_open(trigger)
    several = len(found.triggers) > 1
    names = [trigger.name for trigger in found.triggers]
    rendered = [
        {**_trigger(trigger.name, trigger.type, trigger.metadata), **_authentication(found)}
        for trigger in found.triggers
    ]
    # Of several triggers the HPA takes the largest, and what waits is their sum.
    formula = found.formula or (" + ".join(names) if several else None)
    return Triggers(rendered, formula, str(target), found)


def _reader(name: str) -> Callable[[str, str, int, KubernetesSettings], Native]:
    try:
        module = importlib.import_module(f"{_HERE}.{name}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in CLIENTS:
            raise
        raise MissingExtraError(package, CLIENTS[package], DISTRIBUTIONS.get(package)) from error
    native: Callable[[str, str, int, KubernetesSettings], Native] = module.native
    return native


def _trigger(name: str, kind: str, metadata: dict[str, str]) -> dict[str, Any]:
    # With metricType Value the HPA would multiply the ratio by how many there are, and so lag behind itself.
    return {"name": name, "type": kind, "metricType": "AverageValue", "metadata": metadata}


def _authentication(found: Native) -> dict[str, Any]:
    return {"authenticationRef": {"name": "broker"}} if found.logs_in else {}


def _check_open(trigger: Trigger) -> None:
    """Raises ConfigError where a trigger, which everybody may read, would have something secret in it."""
    for value in trigger.metadata.values():
        if "@" in value or ("://" in value and shown(value) != value):
            raise ConfigError(
                f"the trigger {trigger.type} would show who asks, or what is behind a ?, in an address of the broker's"
                " URL; write that address without, and keep counts from those who may not read them by the network"
            )


def _whole(model: Model, each: int) -> int:
    """Messages to a pod of *each* workers."""
    wanted = model.settings.scaling.messages_each
    target = wanted * each
    if not target.is_integer():
        pod = f" for a pod of {each} workers" if each > 1 else ""
        raise ConfigError(
            f"models.{model.name}.scaling.messages_each = {wanted:g}: KEDA's own triggers take a whole number of"
            f" messages, not {target:g}{pod}; write {max(1, math.floor(wanted))}, or kubernetes.trigger ="
            ' "external-push"'
        )
    return int(target)
