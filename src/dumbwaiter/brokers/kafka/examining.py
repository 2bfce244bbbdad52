"""What Kafka guarantees as it is configured, read from it: replication, and the settings of topics and brokers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME
from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]

from dumbwaiter.brokers.findings import Finding, Level
from dumbwaiter.brokers.kafka.link import Link
from dumbwaiter.brokers.kafka.location import USUAL_LIMIT
from dumbwaiter.brokers.kafka.names import DEAD, LEDGER, PARTS, topic_of
from dumbwaiter.brokers.kafka.tail import begin, consumer_of
from dumbwaiter.errors import BrokerUnavailableError

_ANSWER_WITHIN = 3.0


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as it is: its *name*, the *part* of a queue that it is, on how many brokers it lies, and *settings*."""

    name: str
    part: int
    replicas: int
    settings: Mapping[str, str]


async def largest_batch(link: Link) -> int:
    """The bytes that a batch of records may take, by what the brokers say; the usual where they say nothing."""
    brokers = (await link.metadata()).brokers
    settings = await _settings(link, [ConfigResource(ResourceType.BROKER, str(id_)) for id_ in brokers])
    sizes = [int(one["message.max.bytes"]) for one in settings if one.get("message.max.bytes", "").isdigit()]
    return min(sizes, default=USUAL_LIMIT)


async def examine(link: Link, queues: list[str], *, lock: float, longest_run: float | None) -> list[Finding]:
    """All that is worth saying. Raises BrokerUnavailableError."""
    metadata = await link.metadata()
    names = {topic_of(link.location.prefix, queue, part): part for queue in queues for part in PARTS}
    there = [name for name in names if name in metadata.topics]
    settings = await _settings(link, [ConfigResource(ResourceType.TOPIC, name) for name in there])
    topics = [
        Topic(
            name=name,
            part=names[name],
            replicas=min((len(one.replicas) for one in metadata.topics[name].partitions.values()), default=0),
            settings=said,
        )
        for name, said in zip(there, settings, strict=True)
    ]
    findings = [_durability(topics, len(metadata.brokers))]
    for topic in topics:
        findings += findings_of(topic)
    if not any(_time(topic) for topic in topics):  # what is said need not be what is done
        findings += await _stamps(link, [topic.name for topic in topics if topic.part == LEDGER])
    return [*findings, *_locks(lock, longest_run), *_silence(topics)]


async def _settings(link: Link, resources: list[ConfigResource]) -> list[dict[str, str]]:
    """The settings of each; none where the server does not tell them, or not to us."""
    if not resources:
        return []
    futures = link.admin.describe_configs(resources, request_timeout=_ANSWER_WITHIN)
    try:
        answers = await link.answers("describe configurations", futures)
    except BrokerUnavailableError:
        await link.metadata()  # raises where nobody can be asked
        return [{} for _ in resources]
    return [
        {name: entry.value for name, entry in answers[resource].items() if entry.value is not None}
        for resource in resources
    ]


def findings_of(topic: Topic) -> list[Finding]:
    """What is to be said of *topic*; nothing if all is as it should be."""
    return [*_replication(topic), *_retention(topic), *_time(topic)]


def _durability(topics: list[Topic], brokers: int) -> Finding:
    least = min((topic.replicas for topic in topics), default=0)
    text = "a message is confirmed when all replicas in sync have it (acks=all, idempotent); "
    if not topics:
        plural = "one broker" if brokers == 1 else f"{brokers} brokers"
        return Finding(level="note", subject="durability", text=f"{text}there are no queues yet, on {plural}")
    if least > 1:
        return Finding(level="ok", subject="durability", text=f"{text}each lies on {least} brokers at least")
    return Finding(
        level="warning",
        subject="durability",
        text=f"{text}topics lie on one broker only, which does not sync each message to disk: its disk or a crash of "
        "its machine takes confirmed messages with it",
        remedy="make the topics with replicas=3 in the URL, on three brokers or more",
    )


def _replication(topic: Topic) -> list[Finding]:
    findings: list[Finding] = []
    insync = topic.settings.get("min.insync.replicas")
    if topic.replicas > 1 and insync == "1":
        text = f"{topic.name}: a message is confirmed when one broker has it (min.insync.replicas=1)"
        findings.append(_finding("warning", topic.name, text, _set(topic.name, "min.insync.replicas=2")))
    if topic.settings.get("unclean.leader.election.enable") == "true":
        text = f"{topic.name}: a broker that lags may become leader, and confirmed messages are lost"
        findings.append(_finding("danger", topic.name, text, _set(topic.name, "unclean.leader.election.enable=false")))
    return findings


def _retention(topic: Topic) -> list[Finding]:
    findings: list[Finding] = []
    for name in ("retention.ms", "retention.bytes"):
        value = topic.settings.get(name)
        if value is not None and value != "-1":
            what = {LEDGER: "who holds what is forgotten", DEAD: "dead letters vanish"}.get(
                topic.part, "messages are thrown away, served or not"
            )
            text = f"{topic.name} has {name}={value}: {what}"
            level: Level = "warning" if topic.part == DEAD else "danger"
            findings.append(_finding(level, topic.name, text, _set(topic.name, f"{name}=-1")))
    if "compact" in topic.settings.get("cleanup.policy", "delete"):
        text = f"{topic.name} is compacted: records without a key, or of one key, are thrown away"
        findings.append(_finding("danger", topic.name, text, _set(topic.name, "cleanup.policy=delete")))
    return findings


def _time(topic: Topic) -> list[Finding]:
    if topic.part != LEDGER or topic.settings.get("message.timestamp.type", "LogAppendTime") == "LogAppendTime":
        return []
    text = f"{topic.name} does not take the broker's time: locks end by the clocks of workers, which may differ"
    return [_finding("warning", topic.name, text, _set(topic.name, "message.timestamp.type=LogAppendTime"))]


async def _stamps(link: Link, ledgers: list[str]) -> list[Finding]:
    """What whoever stamped a record of any of *ledgers* means for locks; nothing where none has a record."""
    places = [(ledger, 0) for ledger in ledgers]
    firsts, ends = await link.ends(places, first=True), await link.ends(places)
    for name, _ in places:
        last = ends[name, 0] - 1
        if last >= firsts[name, 0]:
            kind = await asyncio.to_thread(_kind_of_stamp, link, name, last)
            return stamp_findings(name, kind)
    return []


def _kind_of_stamp(link: Link, topic: str, offset: int) -> int | None:
    """The kind of the time of the record at *offset* or of the next one there; None where none comes in time."""
    consumer = consumer_of(link)
    try:
        begin(consumer, topic, 0, offset)
        record = consumer.poll(_ANSWER_WITHIN)
        return None if record is None or record.error() is not None else int(record.timestamp()[0])
    finally:
        consumer.close()


def stamp_findings(topic: str, kind: int | None) -> list[Finding]:
    """What it means that a record of the ledger *topic* has a time of that *kind*; nothing for the broker's."""
    if kind in (None, TIMESTAMP_LOG_APPEND_TIME):
        return []
    text = (
        f"records of {topic} have the time of whoever wrote them, although it is to have the broker's: locks and delays"
        " end by the clocks of workers and gateways, and one that is an hour ahead ends all locks at once"
    )
    return [_finding("warning", topic, text, "keep all clocks in step (NTP), or take a server with LogAppendTime")]


def _locks(lock: float, longest_run: float | None) -> list[Finding]:
    if longest_run is None or longest_run < lock:
        return []
    text = f"the longest run takes {longest_run:g} s: its lock of {lock:g} s is renewed meanwhile, without an end"
    return [Finding(level="ok", subject="long runs", text=text)]


def _silence(topics: list[Topic]) -> list[Finding]:
    if not topics or all("min.insync.replicas" in topic.settings for topic in topics):
        return []
    text = (
        "the server does not tell this user all settings, min.insync.replicas for one: what it would lose is "
        "not known; with Kafka, allow DESCRIBE_CONFIGS"
    )
    return [Finding(level="note", subject="settings", text=text)]


def _finding(level: Level, name: str, text: str, remedy: str) -> Finding:
    return Finding(level=level, subject=name, text=text, remedy=remedy)


def _set(name: str, setting: str) -> str:
    return f"kafka-configs.sh --bootstrap-server HOST:9092 --alter --topic {name} --add-config {setting}"
