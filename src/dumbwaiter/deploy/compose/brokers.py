"""The broker's container: what each server needs so that it loses nothing, and lets in who has the password. Pure."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from dumbwaiter.deploy.compose.project import ComposeProject

Object = dict[str, Any]
_LEAST_HOLD = 1800.0
"""Seconds after which RabbitMQ by itself takes back what nobody has settled."""


class Server(NamedTuple):
    """A *service* called like the broker; *url* for whoever asks it and *settings* of its own, both with ``%s`` for the
    password; the *user* as whom it runs, who reads them; and the folder in which it keeps what it has.
    """

    service: Object
    url: str
    settings: str
    user: int
    keeps: str


def server_of(project: ComposeProject) -> Server:
    """The one that *project* runs."""
    return {"redis": _redis, "rabbitmq": _rabbitmq}[project.broker](project)


def _redis(_: ComposeProject) -> Server:
    # Each command is on disk before it is confirmed, and nothing is thrown away when memory runs out.
    settings = (
        'dir /data\\nappendonly yes\\nappendfsync always\\nsave ""\\nmaxmemory-policy noeviction\\nrequirepass %s\\n'
    )
    service: Object = {
        "image": "redis:7.4",
        "command": ["redis-server", "/run/secrets/broker"],
        # It asks for the password, and so it listens.
        "healthcheck": _checked(["CMD-SHELL", "redis-cli ping | grep -qE 'PONG|NOAUTH'"]),
        "tmpfs": ["/tmp"],  # noqa: S108 - the container's own
        "read_only": True,
        "secrets": [{"source": "broker", "target": "/run/secrets/broker"}],
    }
    return Server(service, "redis://:%s@redis:6379", settings, 999, "/data")


def _rabbitmq(project: ComposeProject) -> Server:
    longest = max(model.settings.timeout for model in project.models)
    hold = math.ceil(max(_LEAST_HOLD, 4 * longest) * 1000)
    settings = f"default_user = dumbwaiter\\ndefault_pass = %s\\nloopback_users = none\\nconsumer_timeout = {hold}\\n"
    service: Object = {
        "image": "rabbitmq:4.1",
        # What it keeps is kept under its name.
        "hostname": "rabbitmq",
        "healthcheck": _checked(["CMD", "rabbitmq-diagnostics", "-q", "check_port_connectivity"]),
        "secrets": [{"source": "broker", "target": "/etc/rabbitmq/conf.d/20-dumbwaiter.conf"}],
    }
    return Server(service, "amqp://dumbwaiter:%s@rabbitmq:5672", settings, 999, "/var/lib/rabbitmq")


def _checked(test: list[str]) -> Object:
    return {"test": test, "interval": "10s", "timeout": "10s", "start_period": "60s", "retries": 6}
