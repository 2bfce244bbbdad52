"""Google Pub/Sub: what was not acknowledged in each lane's subscription, by Cloud Monitoring."""

from __future__ import annotations

from dumbwaiter.brokers.pubsub.location import location_of
from dumbwaiter.brokers.pubsub.names import id_of
from dumbwaiter.config import KubernetesSettings
from dumbwaiter.deploy.kubernetes.secrets import GOOGLE_FILE
from dumbwaiter.deploy.kubernetes.triggers.shape import LANE_NAMES, Native, Trigger

_NOTE = (
    "num_undelivered_messages, in which Google counts outstanding ones too. Cloud Monitoring tells it minutes later, "
    "and KEDA has announced the end of this trigger (https://keda.sh/blog/2025-09-15-gcp-deprecations)."
)


def native(url: str, queue: str, target: int, settings: KubernetesSettings) -> Native:
    """The triggers for *queue*."""
    location = location_of(url)
    is_gcp = settings.identity == "gcp"

    def subscription(lane: int) -> str:
        return f"projects/{location.project}/subscriptions/{id_of(location.prefix, queue, lane)}"

    common = {"mode": "SubscriptionSize", "value": str(target), "activationValue": "0"}
    return Native(
        triggers=[
            Trigger(name, "gcp-pubsub", {"subscriptionName": subscription(lane), **common})
            for lane, name in LANE_NAMES.items()
        ],
        secrets={} if is_gcp else {"GoogleApplicationCredentials": GOOGLE_FILE},
        identity=is_gcp,
        note=_NOTE,
    )
