"""NATS JetStream: what is pending in each lane's consumer, delivered or not."""

from __future__ import annotations

from urllib.parse import urlsplit

from dumbwaiter.brokers.nats.address import read_url
from dumbwaiter.brokers.nats.layout import LANE_NAMES, names_of
from dumbwaiter.config import KubernetesSettings
from dumbwaiter.deploy.kubernetes.triggers.shape import Native, Trigger
from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

_NOTE = (
    'A consumer\'s num_pending and num_ack_pending: what waits and what runs. "again" is the lane of what was handed '
    "back. The server must open its monitoring port (-m 8222) to KEDA."
)


def native(url: str, queue: str, target: int, settings: KubernetesSettings) -> Native:
    """The triggers for *queue*."""
    address = read_url(url)
    monitor = settings.monitor or address.monitor
    if monitor is None:
        raise ConfigError(
            f"KEDA reads NATS's counts from its monitoring port, and {shown(url)} names none; write ?monitor="
            "http://host:8222 into it, or kubernetes.monitor"
        )
    parts = urlsplit(monitor)
    stream = names_of(address.prefix, queue).stream
    return Native(
        triggers=[
            Trigger(
                lane,
                "nats-jetstream",
                {
                    "natsServerMonitoringEndpoint": parts.netloc,
                    "useHttps": "true" if parts.scheme == "https" else "false",
                    "account": settings.nats_account,
                    "stream": stream,
                    "consumer": lane,
                    "lagThreshold": str(target),
                    "activationLagThreshold": "0",
                },
            )
            for lane in LANE_NAMES
        ],
        note=_NOTE,
    )
