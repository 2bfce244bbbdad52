"""What is in a queue, read from its streams and consumers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dumbwaiter.brokers.nats.answers import status_of
from dumbwaiter.brokers.nats.headers import SENT, number, parse_stamp
from dumbwaiter.brokers.nats.layout import LANE_NAMES, Names
from dumbwaiter.message import QueueStats

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from dumbwaiter.brokers.nats.link import Link
    from dumbwaiter.brokers.nats.queues import Queues

_NS = 1_000_000_000


async def stats_of(link: Link, queues: Queues, names: Names) -> QueueStats:
    """Counts of one queue. What a killed process held counts as locked until somebody receives."""
    answers = await link.ask(
        [
            link.api(f"STREAM.INFO.{names.stream}", {"subjects_filter": names.lanes}),
            link.api(f"CONSUMER.LIST.{names.stream}"),
            link.api(f"STREAM.INFO.{names.dead_stream}"),
        ]
    )
    stream, listed, dead = (link.read(answer) for answer in answers)
    for content in (stream, listed, dead):
        queues.check(content, names.queue)
    consumers = {info["name"]: info for info in listed["consumers"] or []}
    ready, locked, delayed = counts(stream, consumers)
    age = 0.0
    if ready:
        age = await _oldest_age(link, names, consumers, now=parse_stamp(stream["ts"]))
    return QueueStats(ready=ready, locked=locked, delayed=delayed, dead=dead["state"]["messages"], oldest_age=age)


def counts(stream: dict[str, Any], consumers: dict[str, dict[str, Any]]) -> tuple[int, int, int]:
    """How many are ready, locked and delayed. The answers were not given in one moment, so none falls below 0."""
    state = stream["state"]
    in_lanes = sum((state.get("subjects") or {}).values())
    locked = min(in_lanes, sum(info["num_ack_pending"] for info in consumers.values()))
    return in_lanes - locked, locked, max(0, state["messages"] - in_lanes)


async def _oldest_age(link: Link, names: Names, consumers: dict[str, dict[str, Any]], *, now: float) -> float:
    """Seconds that the oldest of those waits that were not delivered yet; by the server's clock alone."""
    questions = []
    for lane, subject in zip(LANE_NAMES, names.subjects, strict=True):
        consumer = consumers.get(lane)
        if consumer is not None and consumer["num_pending"]:
            request = {"seq": consumer["delivered"]["stream_seq"] + 1, "next_by_subj": subject}
            questions.append(link.api(f"DIRECT.GET.{names.stream}", request))
    if not questions:
        return 0.0
    ages = [now - _sent(message) for message in await link.ask(questions) if status_of(message) is None]
    return max(0.0, *ages) if ages else 0.0


def _sent(message: Msg) -> float:
    headers = message.headers or {}
    return number(headers, SENT) / _NS or parse_stamp(headers["Nats-Time-Stamp"])
