"""What a Pulsar server guarantees as it is configured, as far as it can be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dumbwaiter.brokers.findings import Finding

_EVICTS = "consumer_backlog_eviction"


def of_protocol(*, fault: str | None, lock_duration: float) -> list[Finding]:
    """*fault*: why a publish was not confirmed, None if it was."""
    if fault is None:
        taken = Finding(level="ok", subject="sending", text="a message was taken and confirmed just now")
    else:
        taken = Finding(
            level="danger",
            subject="sending",
            text=f"nothing can be sent: {fault}",
            remedy="pulsar-admin brokers healthcheck; pulsar-admin topics stats TOPIC",
        )
    return [
        taken,
        Finding(
            level="note",
            subject="completion",
            text="the client sends that a message is complete within 0.1 s, and the server does not confirm it: what "
            "was completed just before a process is killed, or its connection lost, comes once more",
        ),
        Finding(
            level="note",
            subject="delivery counts",
            text="the server keeps them in memory: after its restart, or once a topic has moved, they begin anew, but "
            "for what dumbwaiter has published again",
        ),
        Finding(
            level="ok",
            subject="lost connection",
            text=f"frees what its process held at once; a process that hangs, after {lock_duration:g} s where it still "
            "keeps the time, and after the server's keepAliveIntervalSeconds where it is stopped",
        ),
    ]


def without_admin() -> Finding:
    """The protocol tells nothing of settings."""
    return Finding(
        level="note",
        subject="durability",
        text="a send is confirmed when the server says that it has stored the message; how many copies that makes, "
        "and how long they are kept, only its admin interface tells",
        remedy="add ?admin=http://host:8080 to the URL",
    )


def of_policies(policies: Mapping[str, Any]) -> list[Finding]:
    """By the settings of the namespace, as ``GET /admin/v2/namespaces/TENANT/NAMESPACE`` gives them."""
    return [_of_persistence(policies), _of_ttl(policies), _of_quota(policies)]


def _of_persistence(policies: Mapping[str, Any]) -> Finding:
    persistence = policies.get("persistence")
    if not isinstance(persistence, Mapping):
        return Finding(
            level="note",
            subject="durability",
            text="the namespace does not say how many copies of a message are confirmed: managedLedgerDefaultAckQuorum "
            "in broker.conf does",
            remedy="pulsar-admin namespaces set-persistence TENANT/NAMESPACE -e 3 -w 3 -a 2 -r 0",
        )
    written, confirmed = persistence.get("bookkeeperWriteQuorum"), persistence.get("bookkeeperAckQuorum")
    text = f"a send is confirmed once {confirmed} of {written} copies are stored"
    if isinstance(confirmed, int) and confirmed >= 2:
        return Finding(level="ok", subject="durability", text=text)
    return Finding(
        level="warning",
        subject="durability",
        text=f"{text}: that one disk's loss is the messages' loss",
        remedy="pulsar-admin namespaces set-persistence TENANT/NAMESPACE -e 3 -w 3 -a 2 -r 0",
    )


def _of_ttl(policies: Mapping[str, Any]) -> Finding:
    ttl = policies.get("message_ttl_in_seconds")
    if isinstance(ttl, int) and ttl > 0:
        return Finding(
            level="danger",
            subject="message TTL",
            text=f"what waits for longer than {ttl} s is dropped, dead letters and the list of queues too",
            remedy="pulsar-admin namespaces remove-message-ttl TENANT/NAMESPACE",
        )
    return Finding(level="ok", subject="message TTL", text="the namespace sets none")


def _of_quota(policies: Mapping[str, Any]) -> Finding:
    quotas = policies.get("backlog_quota_map")
    for quota in quotas.values() if isinstance(quotas, Mapping) else ():
        if isinstance(quota, Mapping) and quota.get("policy") == _EVICTS:
            return Finding(
                level="danger",
                subject="backlog quota",
                text="when its quota is used up the oldest messages are dropped",
                remedy="pulsar-admin namespaces set-backlog-quota TENANT/NAMESPACE --limit 10G "
                "--policy producer_exception",
            )
    return Finding(level="ok", subject="backlog quota", text="no message is dropped when it is used up")
