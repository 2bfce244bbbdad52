"""RabbitMQ: messages of all lanes, by the management interface."""

from __future__ import annotations

from urllib.parse import quote

from dumbwaiter.brokers.rabbitmq.location import location_of
from dumbwaiter.brokers.rabbitmq.names import lane_names
from dumbwaiter.config import KubernetesSettings
from dumbwaiter.deploy.kubernetes.secrets import Entry
from dumbwaiter.deploy.kubernetes.triggers.files import without_files
from dumbwaiter.deploy.kubernetes.triggers.shape import Native, Trigger, any_of

_KEY = "rabbitmq-management"
_PORTS = {False: 15672, True: 15671}
_NOTE = (
    "By HTTP, for over AMQP KEDA sees only what is ready, and would end workers that are busy. The server needs its "
    "management plugin, and the user there the tag monitoring or management."
)


def native(url: str, queue: str, target: int, settings: KubernetesSettings) -> Native:
    """The trigger for *queue*."""
    url, files = without_files(url, "ca_certs")
    location = location_of(url)
    scheme = "https" if location.is_encrypted else "http"
    base = settings.monitor or f"{scheme}://{location.host}:{_PORTS[location.is_encrypted]}"
    place = f"{base.rstrip('/')}/{quote(location.virtual_host, safe='')}"
    wanted = place.replace("://", "://USER:PASSWORD@", 1)
    metadata = {
        "protocol": "http",
        "queueName": any_of(lane_names(location.prefix, queue)),
        "useRegex": "true",
        "operation": "sum",
        "mode": "QueueLength",
        "value": str(target),
        "activationValue": "0",
        "excludeUnacknowledged": "false",
    }
    if not location.verify:
        metadata["unsafeSsl"] = "true"
    return Native(
        triggers=[Trigger("messages", "rabbitmq", metadata)],
        secrets={"host": _KEY},
        files={"ca": files["ca_certs"]} if files else {},
        entries=[Entry(_KEY, f"the management interface: {wanted}")],
        note=_NOTE,
    )
