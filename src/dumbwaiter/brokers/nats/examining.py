"""What a server guarantees as it is configured: read from it, and nothing guessed."""

from __future__ import annotations

import asyncio
import http.client
import json
import urllib.request
from typing import TYPE_CHECKING, Any

from dumbwaiter.brokers.findings import Finding
from dumbwaiter.brokers.nats.layout import LANE_NAMES, own_lock_of
from dumbwaiter.brokers.nats.queues import LEAST_VERSION
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from dumbwaiter.brokers.nats.address import Address
    from dumbwaiter.brokers.nats.layout import Names
    from dumbwaiter.brokers.nats.link import Link
    from dumbwaiter.brokers.nats.queues import Queues

_NS = 1_000_000_000
_LATE = 5.0
_SAFE_REPLICAS = 3
_MONITOR_PATIENCE = 3.0
_SCHEMES = ("http://", "https://")
_NAMED = 4
_TRIED_NBYTES = 64 * 1024
_SYNC_REMEDY = "in the server's configuration: jetstream { sync_interval: always }"


async def examine(link: Link, queues: Queues, address: Address, *, lock_duration: float) -> list[Finding]:
    """The findings on the server and on each queue under the prefix. Raises BrokerUnavailableError."""
    account = await link.json("INFO")
    queues.check(account)
    findings = of_server(queues.version, str(link.info["version"]), queues.max_payload)
    lonely = of_cluster(link.info.get("cluster"), replicas=address.replicas)
    findings += [*of_account(account), lonely or await _of_writing(queues)]
    listed = [queues.names(queue) for queue in await queues.names_listed()]
    streams = {names.queue: await _streams(link, queues, names) for names in listed}
    configs = [config for some in streams.values() for config in some]
    least = min((config["num_replicas"] for config in configs), default=1)
    findings += await _of_monitor(address, replicas=least)
    if configs:
        findings.append(of_replicas(configs))
    for names in listed:
        for config in streams[names.queue]:
            findings += of_stream(names.queue, config, replicas=address.replicas)
        consumers = {info["name"]: info for info in await queues.consumers(names)}
        findings += of_consumers(names.queue, consumers, lock_duration=lock_duration)
    return findings


async def _streams(link: Link, queues: Queues, names: Names) -> list[dict[str, Any]]:
    configs = []
    for answer in await link.ask([link.api(f"STREAM.INFO.{name}") for name in (names.stream, names.dead_stream)]):
        content = link.read(answer)
        queues.check(content, names.queue)
        configs.append(content["config"])
    return configs


def of_server(version: tuple[int, ...], shown_version: str, max_payload: int) -> list[Finding]:
    """What the server says of itself to everybody."""
    findings = [Finding(level="ok", subject="version", text=f"NATS {shown_version}")]
    if version < (2, 12):
        least = ".".join(map(str, LEAST_VERSION))
        text = (
            f"NATS {shown_version} (at least {least} is needed) has no scheduled messages: nothing can be sent for "
            "later, and what was handed back with a delay is counted as locked meanwhile"
        )
        findings[0] = Finding(level="note", subject="version", text=text, remedy="run NATS 2.12 or newer")
    findings.append(
        Finding(level="ok", subject="max_payload", text=f"{max_payload} bytes, headers included, by the server")
    )
    return findings


def of_cluster(name: str | None, *, replicas: int) -> Finding | None:
    """What is wrong with asking for so many *replicas* in the cluster of that *name*, which a single server lacks."""
    if name or replicas == 1:
        return None
    text = f"the URL asks for {replicas} replicas, and this server is in no cluster: it makes no queue of that kind"
    remedy = f"a cluster of {replicas} servers, or a URL without ?replicas="
    return Finding(level="danger", subject="replicas", text=text, remedy=remedy)


def of_account(account: dict[str, Any]) -> list[Finding]:
    """How much of its share of the disk an account has used."""
    limit, used = account.get("limits", {}).get("max_storage", -1), account.get("storage", 0)
    if limit <= 0:
        text = f"{used} bytes in files, without a limit for this account; the server has one of its own"
        return [Finding(level="ok", subject="storage of the account", text=text)]
    text = f"{used} of {limit} bytes that this account may store"
    return [_of_share("account", used, limit, text, "raise max_file of the account, or purge dead letters")]


def of_store(varz: dict[str, Any]) -> list[Finding]:
    """How much of its own limit the server whose /varz this is has used."""
    jetstream = varz.get("jetstream", {})
    limit, used = jetstream.get("config", {}).get("max_storage", -1), jetstream.get("stats", {}).get("storage", 0)
    if limit <= 0:
        return []
    text = f"{used} of {limit} bytes that this server may store"
    return [_of_share("server", used, limit, text, "raise max_file_store of the server, or purge dead letters")]


def _of_share(whose: str, used: int, limit: int, text: str, remedy: str) -> Finding:
    if used < 0.8 * limit:
        return Finding(level="ok", subject=f"storage of the {whose}", text=text)
    remedy = f"{remedy}; at the limit nothing more can be sent"
    return Finding(level="warning", subject=f"storage of the {whose}", text=text, remedy=remedy)


async def _of_writing(queues: Queues) -> Finding:
    """Whether the server takes a message. Nothing else tells for sure that its disk is not full."""
    nbytes = min(_TRIED_NBYTES, queues.max_payload // 2)
    try:
        await queues.check_writing(nbytes)
    except BrokerUnavailableError as error:
        remedy = "free disk space, raise max_file_store, or purge dead letters; a cluster needs a leader"
        return Finding(level="danger", subject="writing", text=f"nothing can be sent: {error}", remedy=remedy)
    return Finding(level="ok", subject="writing", text=f"a message of {nbytes} bytes was stored just now")


def of_syncing(varz: dict[str, Any], *, replicas: int) -> Finding:
    """When the server whose /varz this is writes to disk."""
    config = varz.get("jetstream", {}).get("config", {})
    if config.get("sync_always"):
        return Finding(level="ok", subject="durability", text="each message is on disk before it is confirmed")
    seconds = config.get("sync_interval", 0) / _NS
    text = f"confirmed messages are written to disk every {seconds:g} s: a power cut loses what came since"
    if replicas >= _SAFE_REPLICAS:
        text = f"{text} on that server, and {replicas} replicas keep it unless they all fail at once"
        return Finding(level="note", subject="durability", text=text, remedy=_SYNC_REMEDY)
    return Finding(level="danger", subject="durability", text=text, remedy=_SYNC_REMEDY)


async def _of_monitor(address: Address, *, replicas: int) -> list[Finding]:
    if address.monitor is None:
        text = (
            "NATS does not tell its clients how often it writes to disk; as it comes, every 2 minutes, so that a power "
            "cut loses what was confirmed since"
        )
        level: Any = "note" if replicas >= _SAFE_REPLICAS else "warning"
        remedy = f"{_SYNC_REMEDY}; with ?monitor=http://host:8222 in the URL this is read from the server"
        return [Finding(level=level, subject="durability", text=text, remedy=remedy)]
    url = f"{address.monitor.rstrip('/')}/varz"
    try:
        varz = await asyncio.to_thread(_fetch, url)
    except (OSError, ValueError, http.client.HTTPException) as error:
        # What urllib says of an address that it cannot read quotes it, password and all.
        reason = getattr(error, "reason", None) or type(error).__name__
        where = shown(url) if url.startswith(_SCHEMES) else "what ?monitor= names"
        text = f"{where} cannot be read: {reason}"
        remedy = "name the server's monitoring port in ?monitor="
        return [Finding(level="warning", subject="durability", text=text, remedy=remedy)]
    return [of_syncing(varz, replicas=replicas), *of_store(varz)]


def _fetch(url: str) -> dict[str, Any]:
    if not url.startswith(_SCHEMES):
        raise ValueError("it is no http URL")
    with urllib.request.urlopen(url, timeout=_MONITOR_PATIENCE) as response:  # noqa: S310 - checked above
        varz = json.load(response)
    if not isinstance(varz, dict):
        raise ValueError("it is no server of NATS")  # noqa: TRY004 - it is what came that is wrong
    return varz


def of_stream(queue: str, config: dict[str, Any], *, replicas: int) -> list[Finding]:
    """What a stream of *queue* guarantees."""
    name, found = config["name"], config["num_replicas"]
    change = f"nats stream edit {name}"
    findings: list[Finding] = []

    def add(level: Any, text: str, remedy: str = "") -> None:
        findings.append(Finding(level=level, subject=f"stream {name}", text=text, remedy=remedy))

    if config["storage"] != "file":
        add("danger", f"keeps queue {queue!r} in memory: a restart loses all of it", "delete it, and create the queue")
    if config["discard"] == "old" and (config["max_msgs"] > 0 or config["max_bytes"] > 0):
        add("danger", "throws the oldest messages away when it is full", f"{change} --max-msgs=-1 --max-bytes=-1")
    if config.get("max_age"):
        add("danger", f"throws messages away after {config['max_age'] / _NS:g} s", f"{change} --max-age=0")
    if found < replicas:
        add("warning", f"has {found} replicas, and the URL asks for {replicas}", f"{change} --replicas={replicas}")
    return findings


def of_replicas(configs: list[dict[str, Any]]) -> Finding:
    """On how many servers the streams lie."""
    few = sorted(config["name"] for config in configs if config["num_replicas"] < _SAFE_REPLICAS)
    if not few:
        return Finding(level="ok", subject="replicas", text=f"all queues lie on {_SAFE_REPLICAS} servers or more")
    named = ", ".join(few[:_NAMED]) + (f" and {len(few) - _NAMED} more" if len(few) > _NAMED else "")
    text = f"on fewer than {_SAFE_REPLICAS} servers lie {named}: while those are down, or when their disks are lost, "
    remedy = "a cluster, ?replicas=3 in the URL, and for each stream: nats stream edit STREAM --replicas=3"
    return Finding(level="note", subject="replicas", text=f"{text}so are the messages", remedy=remedy)


def of_consumers(queue: str, consumers: dict[str, Any], *, lock_duration: float) -> list[Finding]:
    """How soon the messages of a killed worker come back, and whether something stops deliveries."""
    findings: list[Finding] = []
    for lane in LANE_NAMES:
        if lane not in consumers:
            text = f"the consumer {lane!r} is not there; the next receive makes it"
            findings.append(Finding(level="note", subject=f"queue {queue}", text=text))
            continue
        config = consumers[lane]["config"]
        if config.get("max_deliver", -1) > 0:
            text = f"the consumer {lane!r} stops delivering a message after {config['max_deliver']} times for ever"
            remedy = "delete the consumer; the next receive makes it"
            findings.append(Finding(level="danger", subject=f"queue {queue}", text=text, remedy=remedy))
        if finding := _of_own_lock(queue, config["ack_wait"] / _NS, lock_duration):
            findings.append(finding)
            break
    return findings


def _of_own_lock(queue: str, own_lock: float, lock_duration: float) -> Finding | None:
    """Whoever created the queue chose how long NATS keeps a message from others without a sign of life."""
    remedy = "with no worker running, delete its consumers; the next receive makes them"
    if own_lock > lock_duration + _LATE:
        text = (
            f"was created by somebody with a longer lock: what a killed worker held is back after {own_lock:g} s, "
            f"not after {lock_duration:g} s"
        )
        return Finding(level="note", subject=f"queue {queue}", text=text, remedy=remedy)
    if own_lock < own_lock_of(lock_duration):
        text = (
            f"was created by somebody with a shorter lock: a worker that stands still for {own_lock:g} s (a model that "
            f"lets no other thread run, a machine that swaps) loses what it holds, whatever its lock of "
            f"{lock_duration:g} s, and the work is done again"
        )
        return Finding(level="warning", subject=f"queue {queue}", text=text, remedy=remedy)
    return None
