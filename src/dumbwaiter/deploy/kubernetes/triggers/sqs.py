"""Amazon SQS: what is visible and in flight in each lane's queue."""

from __future__ import annotations

from dumbwaiter.brokers.sqs.location import location_of
from dumbwaiter.brokers.sqs.names import name_of
from dumbwaiter.config import KubernetesSettings
from dumbwaiter.deploy.kubernetes.triggers.shape import LANE_NAMES, Native, Trigger
from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

_NOTE = "In flight is counted, or busy workers would be ended. The counts of SQS are about a minute old."


def native(url: str, queue: str, target: int, settings: KubernetesSettings) -> Native:
    """The triggers for *queue*."""
    location = location_of(url)
    if location.region is None:
        raise ConfigError(f"KEDA must be told the region of SQS, and {shown(url)} names none; write sqs://REGION")
    common = {
        "awsRegion": location.region,
        "queueLength": str(target),
        "activationQueueLength": "0",
        "scaleOnInFlight": "true",
        "scaleOnDelayed": "false",
    }
    if location.endpoint is not None:
        common["awsEndpoint"] = location.endpoint
    # A name alone is looked up in the account whose credentials ask.
    place = f"{settings.monitor.rstrip('/')}/" if settings.monitor else ""
    is_aws = settings.identity == "aws"
    keys = {} if is_aws else {"awsAccessKeyID": "AWS_ACCESS_KEY_ID", "awsSecretAccessKey": "AWS_SECRET_ACCESS_KEY"}
    return Native(
        triggers=[
            Trigger(name, "aws-sqs-queue", {"queueURL": place + name_of(location.prefix, queue, lane), **common})
            for lane, name in LANE_NAMES.items()
        ],
        secrets=keys,
        identity=is_aws,
        note=_NOTE,
    )
