"""Apache Pulsar: the backlog of each lane's subscription, by the admin interface."""

from __future__ import annotations

from dumbwaiter.brokers.pulsar.location import location_of
from dumbwaiter.brokers.pulsar.names import SUBSCRIPTION, Names
from dumbwaiter.config import KubernetesSettings
from dumbwaiter.deploy.kubernetes.secrets import Entry
from dumbwaiter.deploy.kubernetes.triggers.files import without_files
from dumbwaiter.deploy.kubernetes.triggers.shape import LANE_NAMES, Native, Trigger
from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

_NOTE = (
    'A backlog is what was not acknowledged: what waits and what runs. "delayed" counts too, for it is workers that '
    "move what is due. A topic that is not there yet counts as nothing."
)


def native(url: str, queue: str, target: int, settings: KubernetesSettings) -> Native:
    """The triggers for *queue*."""
    url, files = without_files(url, "ca_certs", "cert", "key")
    location = location_of(url)
    admin = settings.monitor or location.admin
    if admin is None:
        raise ConfigError(
            f"KEDA reads Pulsar's counts from its admin interface, and {shown(url)} names none; write ?admin="
            "http://host:8080 into it, or kubernetes.monitor"
        )
    if files:
        raise ConfigError(
            f"{shown(url)} names certificates; how KEDA would use them with Pulsar is not rendered: write"
            ' kubernetes.trigger = "external-push"'
        )
    names = Names.at(location)
    topics = {name: names.lane(queue, lane) for lane, name in LANE_NAMES.items()} | {"delayed": names.delayed(queue)}
    common = {
        "adminURL": admin.rstrip("/"),
        "subscription": SUBSCRIPTION,
        "isPartitionedTopic": "false",
        "msgBacklogThreshold": str(target),
        "activationMsgBacklogThreshold": "0",
    }
    secrets = {}
    if location.token is not None:
        common["authModes"] = "bearer"
        secrets = {"token": "pulsar-token"}
    elif location.username is not None:
        common["authModes"] = "basic"
        secrets = {"username": "pulsar-username", "password": "pulsar-password"}
    return Native(
        triggers=[Trigger(name, "pulsar", {"topic": topic, **common}) for name, topic in topics.items()],
        secrets=secrets,
        entries=[Entry(key, f"the {name} in the broker's URL, as it is") for name, key in secrets.items()],
        note=_NOTE,
    )
