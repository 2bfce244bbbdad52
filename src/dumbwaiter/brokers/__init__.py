"""Brokers by URL. Adding one: its package, a line in ADAPTERS and one in products.py, an extra in pyproject.toml, and a
conformance test.

One that lies elsewhere is found by its entry point: see entry_points.py.
"""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING

from dumbwaiter.errors import ConfigError, MissingExtraError
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from types import ModuleType

    from dumbwaiter.brokers.contract import Broker

__all__ = ["ADAPTERS", "is_broker_scheme", "open_broker", "shown"]

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

#: What people write for a scheme -> the scheme.
SYNONYMS = {"rabbitmq": "amqp", "rabbitmqs": "amqps", "valkeys": "rediss"}

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

#: Package of a client library -> what pip calls it, where that is another name.
DISTRIBUTIONS = {
    "nats": "nats-py",
    "aio_pika": "aio-pika",
    "confluent_kafka": "confluent-kafka",
    "google": "google-cloud-pubsub",
    "grpc": "grpcio",
    "azure": "azure-servicebus",
    "pulsar": "pulsar-client",
    "_pulsar": "pulsar-client",
}


def open_broker(url: str, *, lock_duration: float | None = None) -> Broker:
    """The broker for *url*, not yet connected: use it with ``async with``.

    *lock_duration* in seconds overrides the default of 30. Raises ConfigError for an unknown scheme, or a lock that is
    not a positive number of seconds; MissingExtraError when its client library is not installed.
    """
    from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION  # noqa: PLC0415 - keeps `import dumbwaiter` light

    adapter = _adapter_for(url)
    if lock_duration is None:
        lock_duration = DEFAULT_LOCK_DURATION
    if not (math.isfinite(lock_duration) and lock_duration > 0):
        raise ConfigError(f"a lock of {lock_duration:g} s: lock_duration must be a positive, finite number of seconds")
    return adapter(url, lock_duration=lock_duration)


def is_broker_scheme(scheme: str) -> bool:
    """Whether there is an adapter for *scheme*, ours or of another distribution. Nothing is loaded."""
    if scheme in ADAPTERS:
        return True
    from dumbwaiter.brokers.entry_points import schemes  # noqa: PLC0415 - looks through all that is installed

    return scheme in schemes()


def _adapter_for(url: str) -> type[Broker]:
    scheme, colon, _ = url.partition(":")
    if colon and scheme in ADAPTERS:
        module, _, name = ADAPTERS[scheme].partition(":")
        ours: type[Broker] = getattr(_imported(module), name)
        return ours
    from dumbwaiter.brokers.entry_points import adapter_of, schemes  # noqa: PLC0415 - as above

    adapter = adapter_of(scheme) if colon and scheme else None
    if adapter is None:
        names = sorted({*ADAPTERS, *schemes()})
        hint, known = _meant(scheme, names) if colon else "", ", ".join(f"{name}:" for name in names)
        raise ConfigError(
            f"no broker for {shown(url)!r}{f'{hint};' if hint else ':'} its scheme must be one of {known}"
        )
    return adapter


def _meant(scheme: str, known: list[str]) -> str:
    from dumbwaiter.spelling import did_you_mean  # noqa: PLC0415 - only on the way to an error

    small = scheme.lower()
    meant = small if small in known else SYNONYMS.get(small)
    return f"; did you mean {meant!r}?" if meant else did_you_mean(small, known)


def _imported(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in CLIENTS:
            raise
        raise MissingExtraError(package, CLIENTS[package], DISTRIBUTIONS.get(package)) from error
