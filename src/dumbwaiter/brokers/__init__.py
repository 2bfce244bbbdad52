"""Brokers by URL. Adding one: its file, a line in ADAPTERS, an extra in pyproject.toml, and a conformance test."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from dumbwaiter.errors import ConfigError, MissingExtraError
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from types import ModuleType

    from dumbwaiter.brokers.contract import Broker

__all__ = ["ADAPTERS", "open_broker", "shown"]

#: URL scheme -> "module:class" of a Broker.
ADAPTERS = {
    "memory": "dumbwaiter.brokers.memory:MemoryBroker",
    "sqlite": "dumbwaiter.brokers.sqlite:SqliteBroker",
    **dict.fromkeys(("redis", "rediss", "valkey"), "dumbwaiter.brokers.redis:RedisBroker"),
    **dict.fromkeys(("nats", "tls"), "dumbwaiter.brokers.nats:NatsBroker"),
    **dict.fromkeys(("amqp", "amqps"), "dumbwaiter.brokers.rabbitmq:RabbitmqBroker"),
    "sqs": "dumbwaiter.brokers.sqs:SqsBroker",
    "kafka": "dumbwaiter.brokers.kafka:KafkaBroker",
    "pubsub": "dumbwaiter.brokers.pubsub:PubsubBroker",
    "servicebus": "dumbwaiter.brokers.servicebus:ServicebusBroker",
    **dict.fromkeys(("pulsar", "pulsar+ssl"), "dumbwaiter.brokers.pulsar:PulsarBroker"),
}

#: Package of a client library -> the extra that installs it.
CLIENTS = {
    "redis": "redis",
    "hiredis": "redis",
    "nats": "nats",
    "aio_pika": "rabbitmq",
    "aiormq": "rabbitmq",
    "pamqp": "rabbitmq",
    "yarl": "rabbitmq",
    "aiobotocore": "sqs",
    "botocore": "sqs",
    "aiohttp": "sqs",
    "confluent_kafka": "kafka",
    "google": "pubsub",
    "grpc": "pubsub",
    "azure": "servicebus",
    "pulsar": "pulsar",
    "_pulsar": "pulsar",
}


def open_broker(url: str, *, lock_duration: float | None = None) -> Broker:
    """The broker for *url*, not yet connected: use it with ``async with``.

    *lock_duration* in seconds overrides the default of 30. Raises ConfigError for an unknown scheme, MissingExtraError
    when its client library is not installed.
    """
    from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION  # noqa: PLC0415 - keeps `import dumbwaiter` light

    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in ADAPTERS:
        known = ", ".join(f"{name}:" for name in sorted(ADAPTERS))
        raise ConfigError(f"no broker for {shown(url)!r}: its scheme must be one of {known}")
    module, _, name = ADAPTERS[scheme].partition(":")
    adapter: type[Broker] = getattr(_imported(module), name)
    return adapter(url, lock_duration=lock_duration or DEFAULT_LOCK_DURATION)


def _imported(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in CLIENTS:
            raise
        raise MissingExtraError(package, CLIENTS[package]) from error
