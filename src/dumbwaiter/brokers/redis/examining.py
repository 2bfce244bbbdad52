"""What a server as it is configured guarantees, read from it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import msgspec

from dumbwaiter.brokers.findings import Finding
from dumbwaiter.brokers.redis.connection import Pipeline
from dumbwaiter.errors import BrokerUnavailableError

OLDEST = (6, 2)
"""The first Redis with ZMSCORE and exclusive bounds of XRANGE; all Valkeys have them."""
DURABILITY = "durability"
FULL = 0.9
"""The part of its memory that a server may use without a warning."""
SETTINGS = (
    "appendonly",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "save",
    "maxmemory",
    "maxmemory-policy",
    "min-replicas-to-write",
)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What INFO says, and the *settings* that CONFIG GET gave; None where this user may not read them."""

    info: Mapping[str, str]
    settings: Mapping[str, str] | None

    @property
    def product(self) -> str:
        """Valkey or Redis, with its version."""
        valkey = self.info.get("valkey_version")
        return f"Valkey {valkey}" if valkey else f"Redis {self.info.get('redis_version', 'of unknown version')}"

    @property
    def is_durable(self) -> bool:
        """Whether each confirmed write is surely on disk."""
        found = self.settings or {}
        wanted = {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
        return all(found.get(name) == value for name, value in wanted.items())

    @property
    def is_cluster(self) -> bool:
        """Whether keys belong to slots, which may lie on several nodes."""
        return self.info.get("cluster_enabled") == "1"


async def read_facts(pipeline: Pipeline) -> Facts:
    """Ask the server. Raises BrokerUnavailableError."""
    sections = ("server", "memory", "persistence", "replication", "cluster")
    texts, settings = await asyncio.gather(
        asyncio.gather(*(pipeline.ask("INFO", section) for section in sections)), _settings(pipeline)
    )
    lines = (line.partition(":") for text in texts for line in text.decode("utf-8", "replace").splitlines())
    return Facts(info={name: value for name, colon, value in lines if colon}, settings=settings)


async def _settings(pipeline: Pipeline) -> Mapping[str, str] | None:
    answers = await asyncio.gather(*(pipeline.call("CONFIG", "GET", name) for name in SETTINGS), return_exceptions=True)
    settings: dict[str, str] = {}
    for answer in answers:
        if isinstance(answer, BrokerUnavailableError):
            raise answer
        if not isinstance(answer, list):
            return None  # a managed server, or a user without that right
        settings |= {answer[i].decode(): answer[i + 1].decode() for i in range(0, len(answer), 2)}
    return settings


def require_version(facts: Facts, where: str) -> None:
    """Raise BrokerUnavailableError when the server is too old."""
    text = facts.info.get("redis_version", "")  # Valkey says here with which Redis it is compatible
    numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise BrokerUnavailableError(
            f"{where} is {facts.product}, and Redis {oldest} or any Valkey is needed: install one"
        )


def findings_of(facts: Facts) -> list[Finding]:
    """All that is worth saying about a server with *facts*."""
    findings = [Finding(level="ok", subject="version", text=facts.product)]
    if facts.settings is None:
        findings += _without_settings(facts)
    else:
        findings += [_durability(facts.settings), _snapshots(facts.settings), _memory(facts.settings)]
    findings += _fullness(facts)
    return [*findings, _replication(facts), *_cluster(facts), *_disk(facts)]


def _durability(settings: Mapping[str, str]) -> Finding:
    if settings.get("appendonly") != "yes":
        since = "that came since the last snapshot" if settings.get("save") else "there is, for there are no snapshots"
        return Finding(
            level="danger",
            subject=DURABILITY,
            text=f"the append-only file is off: a restart loses all {since}",
            remedy="appendonly yes",
        )
    policy = settings.get("appendfsync", "")
    if settings.get("no-appendfsync-on-rewrite") == "yes":
        return Finding(
            level="warning",
            subject=DURABILITY,
            text="while the append-only file is rewritten nothing is synced: a machine that fails then loses all that",
            remedy="no-appendfsync-on-rewrite no",
        )
    if policy == "always":
        text = "each write is on disk before it is confirmed (appendonly yes, appendfsync always)"
        return Finding(level="ok", subject=DURABILITY, text=text)
    lost = "the last second" if policy == "everysec" else "what the system had not written yet, often 30 seconds,"
    return Finding(
        level="warning",
        subject=DURABILITY,
        text=f"appendfsync {policy}: when the machine fails, {lost} of confirmed messages is lost",
        remedy="appendfsync always",
    )


def _snapshots(settings: Mapping[str, str]) -> Finding:
    how = f"are taken: save {settings['save']}" if settings.get("save") else "are off"
    return Finding(
        level="note", subject="snapshots", text=f"RDB snapshots {how}; they do not replace the log of writes"
    )


def _memory(settings: Mapping[str, str]) -> Finding:
    policy, limit = settings.get("maxmemory-policy", ""), int(settings.get("maxmemory", "0") or 0)
    if policy == "noeviction":
        full = "the machine is full" if limit == 0 else f"its {limit / 2**20:.0f} MiB are full"
        return Finding(level="ok", subject="memory", text=f"nothing is evicted; when {full}, sends are refused")
    # Only keys with an expiry are candidates for the volatile policies; queues have none, replies have.
    if policy.startswith("volatile"):
        return Finding(
            level="warning",
            subject="memory",
            text=f"maxmemory-policy {policy}: replies that nobody has read yet may be evicted",
            remedy="maxmemory-policy noeviction",
        )
    when = "as soon as a maxmemory is set" if limit == 0 else f"at {limit / 2**20:.0f} MiB"
    return Finding(
        level="danger",
        subject="memory",
        text=f"maxmemory-policy {policy}: {when} the server throws away whole queues",
        remedy="maxmemory-policy noeviction",
    )


def _fullness(facts: Facts) -> list[Finding]:
    used, limit = (int(facts.info.get(name, "0") or 0) for name in ("used_memory", "maxmemory"))
    if limit == 0 or used < FULL * limit:
        return []
    return [
        Finding(
            level="warning",
            subject="room",
            text=f"{used / 2**20:.0f} of its {limit / 2**20:.0f} MiB of memory are used; when they are full, sends are "
            "refused or queues evicted, by its maxmemory-policy",
            remedy=f"maxmemory {2 * limit / 2**20:.0f}mb, or complete and purge messages",
        )
    ]


def refusal(error: BrokerUnavailableError) -> Finding:
    """The server refuses a write, with *error*, which says what to do."""
    text = f"it takes no messages now: {error}"
    return Finding(level="danger", subject="sends", text=text, remedy="look at `room`, `disk` and `replication` above")


def stranger(registry: str, written: str) -> Finding:
    """*written* is registered in the set *registry*, and there is no such queue."""
    text = f"{written!r} is registered, and no such queue is there: it was deleted, or somebody else wrote that name"
    return Finding(level="note", subject="registry", text=text, remedy=f"SREM {registry} {json.dumps(written)}")


def _without_settings(facts: Facts) -> list[Finding]:
    is_on = facts.info.get("aof_enabled") == "1"
    policy = facts.info.get("maxmemory_policy", "")
    text = "the append-only file is on; how often it is synced cannot be read, for CONFIG GET is refused"
    durability = Finding(
        level="warning" if is_on else "danger",
        subject=DURABILITY,
        text=text if is_on else "the append-only file is off: a restart loses all that came since the last snapshot",
        remedy="appendfsync always, and the right to read it: +config|get" if is_on else "appendonly yes",
    )
    memory = _memory({"maxmemory-policy": policy, "maxmemory": facts.info.get("maxmemory", "0")})
    return [durability, memory] if policy else [durability]


def _replication(facts: Facts) -> Finding:
    info, settings = facts.info, facts.settings or {}
    if info.get("role") == "slave":
        return Finding(
            level="danger",
            subject="replication",
            text=f"this is a replica of {info.get('master_host', 'another server')}: it takes no messages",
            remedy="write the primary's address into the URL",
        )
    replicas = int(info.get("connected_slaves", "0"))
    if replicas == 0:
        text = "no replica: while this server is down, nothing is served"
        return Finding(level="note", subject="replication", text=text)
    least = settings.get("min-replicas-to-write", "")
    if least in ("", "0"):
        return Finding(
            level="warning",
            subject="replication",
            text=f"{replicas} replica(s), which follow a moment later: a failover can lose confirmed messages, "
            "and a primary that is cut off goes on confirming",
            remedy="min-replicas-to-write 1",
        )
    text = f"{replicas} replica(s), at least {least} of them close behind; a failover can still lose the last moment"
    return Finding(level="note", subject="replication", text=text)


def _cluster(facts: Facts) -> list[Finding]:
    if not facts.is_cluster:
        return []
    return [
        Finding(
            level="warning",
            subject="cluster",
            text="cluster mode: this adapter talks to one node, and serves only queues whose slot lies on it",
            remedy="use a server or a Sentinel primary that is no cluster, or a cluster of one node",
        )
    ]


def _disk(facts: Facts) -> list[Finding]:
    failed = [
        name
        for name in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
        if facts.info.get(name, "ok") != "ok"
    ]
    text = f"the server's last write to disk failed ({', '.join(failed)})"
    remedy = "look at its log and at the free space of its disk"
    return [Finding(level="danger", subject="disk", text=text, remedy=remedy)] if failed else []
