"""Real brokers of this machine: each on a free loopback port, with a folder of its own, ended by its own process id.

They confirm a message when it is on disk, unless told otherwise. An object stops what it has started, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dumbwaiter.testing.servers.local import (
    HOST,
    LocalServer,
    MissingServerError,
    ServerStartError,
    free_port,
    program_beside,
)
from dumbwaiter.testing.servers.nats import NatsServer, nats_program
from dumbwaiter.testing.servers.rabbitmq import RabbitmqServer, rabbitmq_program
from dumbwaiter.testing.servers.redis import RedisServer, redis_program, valkey_program
from dumbwaiter.testing.servers.sqs import SqsServer

__all__ = [
    "HOST",
    "SERVERS",
    "LocalServer",
    "MissingServerError",
    "NatsServer",
    "RabbitmqServer",
    "RedisServer",
    "ServerStartError",
    "SqsServer",
    "free_port",
    "nats_program",
    "program_beside",
    "rabbitmq_program",
    "redis_program",
    "valkey_program",
]

#: Name -> a server of that kind that keeps its data in a folder, not yet started. Raises MissingServerError.
SERVERS: dict[str, Callable[[Path], LocalServer]] = {
    "redis": lambda folder: RedisServer(redis_program(), folder),
    "valkey": lambda folder: RedisServer(valkey_program(), folder),
    "nats": NatsServer,
    "rabbitmq": RabbitmqServer,
}
