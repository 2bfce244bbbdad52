"""What SQS guarantees as it is configured, read from it: the settings of each queue under the prefix."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from dumbwaiter.brokers.findings import Finding, Level
from dumbwaiter.brokers.sqs.api import Api, RightMissingError
from dumbwaiter.brokers.sqs.holding import LONGEST_LOCK
from dumbwaiter.brokers.sqs.names import all_of, is_inbox
from dumbwaiter.brokers.sqs.queues import Queues
from dumbwaiter.errors import QueueNotFoundError

_SHORTEST_RETENTION = 4 * 86_400
_SHORTEST_VISIBILITY = 30
_ALL = ("All",)


async def examine(api: Api, queues: Queues, *, longest_run: float | None) -> list[Finding]:
    """All that is worth saying. Raises BrokerUnavailableError."""
    findings = [_durability(api), *_lock(longest_run)]
    prefix = api.location.prefix
    try:
        urls = await queues.list_urls(all_of(prefix))
    except RightMissingError as error:
        return [*findings, _missing(str(error), "sqs:ListQueues")]
    names = {url: url.rpartition("/")[2] for url in urls}
    ours = [url for url in urls if not is_inbox(prefix, names[url])]
    answers = await asyncio.gather(*(_attributes(queues, url) for url in ours))
    for url, answer in zip(ours, answers, strict=True):
        if isinstance(answer, RightMissingError):
            findings.append(_missing(f"{names[url]}: {answer}", "sqs:GetQueueAttributes"))
            break  # most likely for all of them
        if answer is not None:
            findings += findings_of(names[url], answer, max_message_size=api.location.max_message_size)
    if not ours:
        findings.append(Finding(level="note", subject="queues", text=f"there are none yet that begin with {prefix}_"))
    return findings


async def _attributes(queues: Queues, url: str) -> dict[str, str] | RightMissingError | None:
    try:
        return await queues.attributes(url, _ALL)
    except RightMissingError as error:
        return error
    except QueueNotFoundError:
        return None  # deleted between the two looks


def findings_of(name: str, attributes: Mapping[str, str], *, max_message_size: int) -> list[Finding]:
    """What is to be said of the queue that SQS calls *name*, by its *attributes*; nothing if all is as it should be."""
    if name.endswith(".fifo") or attributes.get("FifoQueue") == "true":
        text = f"{name} is a FIFO queue: it is not served, for a group of it waits while one of its messages is locked"
        return [_finding("warning", name, text, "delete it, or give it a name that does not begin like ours")]
    return [
        *_redrive_policy(name, attributes),
        *_retention(name, attributes),
        *_size(name, attributes, max_message_size),
        *_others(name, attributes),
    ]


def _durability(api: Api) -> Finding:
    if api.is_amazon:
        text = "a message is confirmed once SQS has it in several data centres; there is nothing to configure"
        return Finding(level="ok", subject="durability", text=text)
    text = f"{api.location.endpoint} is not Amazon's: whether it keeps what it confirms, nobody can ask it"
    return Finding(level="note", subject="durability", text=text)


def _lock(longest_run: float | None) -> list[Finding]:
    if longest_run is None or longest_run < LONGEST_LOCK:
        return []
    return [
        Finding(
            level="danger",
            subject="lock",
            text=f"the longest run takes {longest_run / 3600:.1f} h, and SQS locks a message for 12 h at most, however "
            "often that is renewed: it goes to another worker meanwhile",
            remedy="make the run shorter, or use another broker for this model",
        )
    ]


def _redrive_policy(name: str, attributes: Mapping[str, str]) -> list[Finding]:
    policy = attributes.get("RedrivePolicy")
    if not policy:
        return []
    text = (
        f"{name} has a redrive policy ({policy}): SQS takes messages away after so many receives, to where no worker "
        "looks, also those that were handed back and never failed"
    )
    return [_finding("danger", name, text, _set(name, "RedrivePolicy="))]


def _retention(name: str, attributes: Mapping[str, str]) -> list[Finding]:
    seconds = int(attributes.get("MessageRetentionPeriod", _SHORTEST_RETENTION))
    if seconds >= _SHORTEST_RETENTION:
        return []
    text = f"{name} throws messages away after {seconds / 3600:.3g} h, served or not"
    level: Level = "danger" if seconds < 3600 else "warning"
    return [_finding(level, name, text, _set(name, "MessageRetentionPeriod=1209600"))]


def _size(name: str, attributes: Mapping[str, str], max_message_size: int) -> list[Finding]:
    limit = int(attributes.get("MaximumMessageSize", max_message_size))
    if limit >= max_message_size:
        return []
    text = f"{name} takes messages of up to {limit} bytes, and {max_message_size} are counted on: larger ones fail"
    return [_finding("warning", name, text, _set(name, f"MaximumMessageSize={max_message_size}"))]


def _others(name: str, attributes: Mapping[str, str]) -> list[Finding]:
    findings: list[Finding] = []
    if (delay := int(attributes.get("DelaySeconds", 0))) > 0:
        text = f"{name} keeps what other producers send back for {delay} s; our own messages say how long they wait"
        findings.append(_finding("note", name, text))
    visibility = int(attributes.get("VisibilityTimeout", _SHORTEST_VISIBILITY))
    if visibility < _SHORTEST_VISIBILITY:
        text = f"{name} locks for {visibility} s by default; that is for other consumers, ours say for how long"
        findings.append(_finding("note", name, text))
    if key := attributes.get("KmsMasterKeyId"):
        text = f"{name} is encrypted with {key}: who sends needs kms:GenerateDataKey, who receives kms:Decrypt"
        findings.append(_finding("note", name, text))
    elif attributes.get("SqsManagedSseEnabled") == "false":
        findings.append(_finding("note", name, f"{name} is not encrypted where it is stored"))
    return findings


def _missing(text: str, right: str) -> Finding:
    return Finding(level="warning", subject="rights", text=text, remedy=f"allow {right} to this role; see the docs")


def _finding(level: Level, name: str, text: str, remedy: str = "") -> Finding:
    return Finding(level=level, subject=name, text=text, remedy=remedy)


def _set(name: str, attribute: str) -> str:
    url = f"aws sqs get-queue-url --queue-name {name} --query QueueUrl --output text"
    return f'aws sqs set-queue-attributes --attributes {attribute} --queue-url "$({url})"'
