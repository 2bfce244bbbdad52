"""What a RabbitMQ server guarantees as it is configured, as far as AMQP can tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dumbwaiter.brokers.findings import Finding

DEFAULT_CONSUMER_TIMEOUT = 1800.0
"""Seconds; since RabbitMQ 3.8.17."""
HEARTBEATS_MISSED = 3
"""So many may pass until the server closes a connection: it looks once in each, and wants to have missed two."""
SHORTEST_HEARTBEAT = 5
"""Seconds; below that RabbitMQ's own guide expects connections to be closed that are well."""


def of_queues(conflicts: Mapping[str, str], looked_at: int) -> Finding:
    """*conflicts*: those of the physical queues *looked_at* that are not as they should be, with the server's words."""
    if conflicts:
        name, said = next(iter(conflicts.items()))
        return Finding(
            level="danger",
            subject="durability",
            text=f"{len(conflicts)} queue(s), {name!r} among them, are no quorum queues as they should be: {said}",
            remedy=f"when it is empty: rabbitmqctl delete_queue {name}, then start its worker again",
        )
    if not looked_at:
        return Finding(
            level="note",
            subject="durability",
            text="no queue was looked at: RabbitMQ lists none over AMQP, and no model with a card has one here",
            remedy="name one that is there (dumbwaiter doctor URL --queue NAME), or the --blobs where the workers "
            "write their cards",
        )
    return Finding(
        level="ok",
        subject="durability",
        text="quorum queues: a send is confirmed once a majority of their nodes has it on disk"
        f" ({looked_at} were looked at)",
    )


def of_server(properties: Mapping[str, Any]) -> list[Finding]:
    """By what the server says of itself."""
    version, cluster = str(properties.get("version", "?")), str(properties.get("cluster_name", "?"))
    return [
        Finding(level="ok", subject="version", text=f"RabbitMQ {version}, cluster {cluster}"),
        Finding(
            level="note",
            subject="replication",
            text="AMQP does not tell how many nodes there are; on a single one its disk's loss is the messages' loss",
            remedy="rabbitmq-diagnostics cluster_status; three nodes keep two copies more",
        ),
    ]


def of_heartbeat(heartbeat: int, lock_duration: float) -> Finding:
    """How long a message stays with a worker that says nothing any more, and is connected still."""
    text = (
        f"a worker that is killed frees its messages at once, but one that is frozen, or cut off without a word, keeps "
        f"them for up to {HEARTBEATS_MISSED * heartbeat} s"
    )
    if lock_duration >= HEARTBEATS_MISSED * heartbeat:
        return Finding(level="ok", subject="heartbeat", text=text)
    least = max(SHORTEST_HEARTBEAT, math.ceil(lock_duration / HEARTBEATS_MISSED))
    remedy = (
        f"?heartbeat={least} in the URL, if no model keeps a worker from answering for {2 * least} s: its connection "
        "would be cut, and all that it holds run again"
    )
    text = f"{text}, although its lock is {lock_duration:g} s: RabbitMQ has no locks that end"
    return Finding(level="note", subject="heartbeat", text=text, remedy=remedy if least < heartbeat else "")


def of_locks(longest_run: float | None) -> Finding:
    """How long a message can be held without a word."""
    known = f"its default is {DEFAULT_CONSUMER_TIMEOUT:g} s, and AMQP does not tell what it is set to here"
    text = (
        f"the server takes back what is held for longer than its consumer_timeout, however often it is renewed; {known}"
    )
    if longest_run is None or longest_run < DEFAULT_CONSUMER_TIMEOUT / 2:
        if longest_run is not None:
            text = f"{text}; the longest run of {longest_run:g} s is well below that"
        return Finding(level="note", subject="consumer_timeout", text=text, remedy="rabbitmq-diagnostics environment")
    milliseconds = round(max(4 * longest_run, 2 * DEFAULT_CONSUMER_TIMEOUT) * 1000)
    return Finding(
        level="warning",
        subject="consumer_timeout",
        text=f"{text}; the longest run is {longest_run:g} s, and messages wait in hand before it",
        remedy=f"in rabbitmq.conf: consumer_timeout = {milliseconds}",
    )


def of_alarms(fault: str | None) -> Finding:
    """*fault*: why a publish was not confirmed, None if it was."""
    if fault is None:
        return Finding(level="ok", subject="alarms", text="publishes are confirmed: no memory or disk alarm stops them")
    return Finding(
        level="danger",
        subject="alarms",
        text=f"nothing can be sent: {fault}",
        remedy="rabbitmq-diagnostics alarms; free disk space or memory, or raise disk_free_limit.absolute no further "
        "than the disk is large",
    )
