"""Azure Service Bus: active messages of all lanes, locked ones too."""

from __future__ import annotations

from dumbwaiter.brokers.servicebus.location import location_of
from dumbwaiter.brokers.servicebus.names import name_of
from dumbwaiter.config import KubernetesSettings
from dumbwaiter.deploy.kubernetes.secrets import Entry
from dumbwaiter.deploy.kubernetes.triggers.shape import LANE_NAMES, Native, Trigger, any_of

_KEY = "servicebus-connection"
_NOTE = (
    "ActiveMessageCount, in which Service Bus counts locked messages too. To list the lanes KEDA needs the right to "
    "manage (the role Azure Service Bus Data Owner), as gateways do."
)


def native(url: str, queue: str, target: int, settings: KubernetesSettings) -> Native:
    """The trigger for *queue*."""
    location = location_of(url, {})
    names = [name_of(location.prefix, queue, lane) for lane in LANE_NAMES]
    metadata = {
        "namespace": location.host.partition(".")[0],
        "queueName": any_of(names),
        "useRegex": "true",
        "operation": "sum",
        "messageCount": str(target),
        "activationMessageCount": "0",
    }
    is_azure = settings.identity == "azure"
    wanted = f"Endpoint=sb://{location.host}/;SharedAccessKeyName=NAME;SharedAccessKey=KEY"
    return Native(
        triggers=[Trigger("messages", "azure-servicebus", metadata)],
        secrets={} if is_azure else {"connection": _KEY},
        entries=[] if is_azure else [Entry(_KEY, f"the connection string: {wanted}")],
        identity=is_azure,
        note=_NOTE,
    )
