"""What Pub/Sub guarantees as it is configured, read from it: the settings of each subscription under the prefix."""

from __future__ import annotations

from typing import Any

from dumbwaiter.brokers.findings import Finding, Level
from dumbwaiter.brokers.pubsub.api import Api, RightMissingError
from dumbwaiter.brokers.pubsub.names import is_ours
from dumbwaiter.brokers.pubsub.topics import ACK_DEADLINE, DELETED_TOPIC, MOST_ATTEMPTS, Topics

_SHORTEST_RETENTION = 4 * 86_400
_DEAD = "~dead"


async def examine(api: Api, topics: Topics, *, lock: float, longest_run: float | None) -> list[Finding]:
    """All that is worth saying. *lock* is for how many seconds a message is locked unless that is renewed.

    Raises BrokerUnavailableError.
    """
    findings = [_durability(api), *_lock(lock, longest_run)]
    try:
        subscriptions = await topics.subscriptions()
    except RightMissingError as error:
        remedy = "give roles/pubsub.viewer to this account; see the docs"
        return [*findings, Finding(level="warning", subject="rights", text=str(error), remedy=remedy)]
    for one in subscriptions:
        findings += findings_of(one, prefix=api.location.prefix)
    if not subscriptions:
        text = f"there are no subscriptions yet that begin with {api.location.prefix}."
        findings.append(Finding(level="note", subject="queues", text=text))
    return findings


def findings_of(subscription: Any, *, prefix: str) -> list[Finding]:
    """What is to be said of a Subscription; nothing if all is as it should be."""
    name = subscription.name.rpartition("/")[2]
    if subscription.topic == DELETED_TOPIC:
        text = f"the topic of {name} was deleted: nothing comes to it any more"
        remedy = f"gcloud pubsub subscriptions delete {name}, and start a worker, which makes both anew"
        return [Finding(level="danger", subject=name, text=text, remedy=remedy)]
    found = [*_exactly_once(name, subscription), *_expiration(name, subscription), *_retention(name, subscription)]
    if not name.endswith(_DEAD):
        found += [*_policy(name, subscription, prefix), *_ack_deadline(name, subscription)]
    return [*found, *_others(name, subscription)]


def _durability(api: Api) -> Finding:
    if api.location.is_emulator:
        text = f"{api.location.place} is an emulator: it keeps all in memory, and forgets it when it ends"
        return Finding(level="note", subject="durability", text=text)
    text = "a message is confirmed once Pub/Sub has it on disks of several zones; there is nothing to configure"
    return Finding(level="ok", subject="durability", text=text)


def _lock(lock: float, longest_run: float | None) -> list[Finding]:
    if longest_run is None or longest_run <= lock:
        return []
    text = f"the longest run takes {longest_run:g} s and a lock {lock:g} s: it is renewed meanwhile, as often as needed"
    return [Finding(level="ok", subject="lock", text=text)]


def _exactly_once(name: str, subscription: Any) -> list[Finding]:
    if subscription.enable_exactly_once_delivery:
        return []
    text = (
        f"{name} has no exactly-once delivery: Pub/Sub may hand out a message that is locked, and takes without a word "
        "what was asked for with a lock that is over"
    )
    return [_finding("danger", name, text, _update(name, "--enable-exactly-once-delivery"))]


def _expiration(name: str, subscription: Any) -> list[Finding]:
    if not subscription.HasField("expiration_policy"):
        days = 31.0  # what Pub/Sub does where nothing is said
    elif subscription.expiration_policy.HasField("ttl"):
        days = subscription.expiration_policy.ttl.seconds / 86_400
    else:
        return []
    text = f"{name} is deleted with all that waits in it when no worker has asked for {days:g} days"
    return [_finding("danger", name, text, _update(name, "--expiration-period=never"))]


def _retention(name: str, subscription: Any) -> list[Finding]:
    seconds = subscription.message_retention_duration.seconds
    if seconds >= _SHORTEST_RETENTION:
        return []
    text = f"{name} throws messages away after {seconds / 3600:.3g} h, served or not"
    level: Level = "danger" if seconds < 3600 else "warning"
    return [_finding(level, name, text, _update(name, "--message-retention-duration=7d"))]


def _policy(name: str, subscription: Any, prefix: str) -> list[Finding]:
    policy = subscription.dead_letter_policy
    dead = f"{name.partition('~')[0]}{_DEAD}"
    right = f"--dead-letter-topic={dead} --max-delivery-attempts={MOST_ATTEMPTS}"
    topic = policy.dead_letter_topic.rpartition("/")[2]
    if not topic:
        text = (
            f"{name} has no dead-letter policy, and without one Pub/Sub does not count deliveries: a message that "
            "kills its worker is served again for ever"
        )
        return [_finding("danger", name, text, _update(name, right))]
    found: list[Finding] = []
    if not (is_ours(prefix, topic) and topic.endswith(_DEAD)):
        text = f"the dead-letter policy of {name} moves messages to {topic}, where nobody of ours looks"
        found.append(_finding("danger", name, text, _update(name, right)))
    if 0 < policy.max_delivery_attempts < MOST_ATTEMPTS:
        text = (
            f"Pub/Sub takes messages from {name} after {policy.max_delivery_attempts} deliveries, also those that were "
            "handed back and never failed; workers count for themselves"
        )
        found.append(_finding("note", name, text, _update(name, right)))
    return found


def _ack_deadline(name: str, subscription: Any) -> list[Finding]:
    seconds = subscription.ack_deadline_seconds
    if seconds <= ACK_DEADLINE:
        return []
    text = (
        f"{name} has an ack deadline of {seconds} s: for so long nobody gets a message that was on its way to a worker "
        "when that was cut off; workers say for themselves how long they hold one"
    )
    return [_finding("note", name, text, _update(name, f"--ack-deadline={ACK_DEADLINE}"))]


def _others(name: str, subscription: Any) -> list[Finding]:
    found: list[Finding] = []
    if subscription.push_config.push_endpoint:
        text = f"{name} pushes its messages to {subscription.push_config.push_endpoint}: workers get none"
        found.append(_finding("danger", name, text, _update(name, "--push-endpoint=")))
    if subscription.filter:
        text = f"{name} throws away what does not match {subscription.filter!r}"
        found.append(_finding("warning", name, text, f"gcloud pubsub subscriptions delete {name}, and make it anew"))
    if subscription.enable_message_ordering:
        text = f"{name} keeps the order of messages with an ordering key: such wait for each other"
        found.append(_finding("note", name, text))
    if subscription.detached:
        text = f"{name} is detached from its topic: nothing comes to it"
        found.append(_finding("danger", name, text, f"gcloud pubsub subscriptions delete {name}, and make it anew"))
    return found


def _finding(level: Level, name: str, text: str, remedy: str = "") -> Finding:
    return Finding(level=level, subject=name, text=text, remedy=remedy)


def _update(name: str, what: str) -> str:
    return f"gcloud pubsub subscriptions update {name} {what}"
