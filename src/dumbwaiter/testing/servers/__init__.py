"""Real brokers of this machine: each on a free loopback port, with a folder of its own, ended by its own process id.

They confirm a message when it is on disk, unless told otherwise or `keeps_data` says no. An object stops what it has
started, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dumbwaiter.testing.servers.kafka import TansuServer, tansu_program
from dumbwaiter.testing.servers.local import (
    HOST,
    LocalServer,
    MissingServerError,
    ServerStartError,
    free_port,
    program_beside,
)
from dumbwaiter.testing.servers.nats import NatsServer, nats_program
from dumbwaiter.testing.servers.pubsub import PubsubServer, pubsub_program
from dumbwaiter.testing.servers.pulsar import PulsarServer, pulsar_program
from dumbwaiter.testing.servers.rabbitmq import RabbitmqServer, rabbitmq_program
from dumbwaiter.testing.servers.redis import RedisServer, oldest_redis_program, redis_program, valkey_program
from dumbwaiter.testing.servers.servicebus import ServicebusServer
from dumbwaiter.testing.servers.sqs import SqsServer

__all__ = [
    "HOST",
    "SERVERS",
    "LocalServer",
    "MissingServerError",
    "NatsServer",
    "PubsubServer",
    "PulsarServer",
    "RabbitmqServer",
    "RedisServer",
    "ServerStartError",
    "ServicebusServer",
    "SqsServer",
    "TansuServer",
    "free_port",
    "nats_program",
    "oldest_redis_program",
    "program_beside",
    "pubsub_program",
    "pulsar_program",
    "rabbitmq_program",
    "redis_program",
    "tansu_program",
    "valkey_program",
]

#: Name -> a server of that kind that keeps its data in a folder, not yet started. Raises MissingServerError.
SERVERS: dict[str, Callable[[Path], LocalServer]] = {
    "redis": lambda folder: RedisServer(redis_program(), folder),
    "valkey": lambda folder: RedisServer(valkey_program(), folder),
    "nats": NatsServer,
    "kafka": TansuServer,
    "rabbitmq": RabbitmqServer,
    "servicebus": ServicebusServer,
    "sqs": lambda folder: SqsServer("ministack", folder),
    "pulsar": PulsarServer,
    "pubsub": PubsubServer,
}
