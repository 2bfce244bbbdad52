"""What Service Bus guarantees as it is configured, read from it: the tier, and the settings of our queues."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

from azure.servicebus.management import QueueProperties

from dumbwaiter.brokers.findings import Finding, Level
from dumbwaiter.brokers.servicebus.api import Api
from dumbwaiter.brokers.servicebus.errors import RightMissingError
from dumbwaiter.brokers.servicebus.names import all_of
from dumbwaiter.brokers.servicebus.queues import LONGEST_LOCK, Queues

_SHORTEST_LIFE = dt.timedelta(days=4)
_SHORTEST_LOCK = dt.timedelta(seconds=15)
_FEWEST_DELIVERIES = 20


async def examine(api: Api, queues: Queues, *, longest_run: float | None) -> list[Finding]:
    """All that is worth saying. Raises BrokerUnavailableError."""
    prefix = api.location.prefix
    findings = [_durability(api), *_lock(longest_run)]
    try:
        namespace = await api.manage("reading the namespace", lambda client: client.get_namespace_properties())
        entities = await queues.all()
    except RightMissingError as error:
        text = f"{error}; so the settings of the queues cannot be read"
        remedy = "give this key the claim Manage, or this identity the role Azure Service Bus Data Owner, to examine it"
        return [*findings, Finding(level="warning", subject="rights", text=text, remedy=remedy)]
    tier = str(namespace.messaging_sku or "unknown")
    findings.append(Finding(level="ok", subject="tier", text=f"the namespace is of the tier {tier}"))
    ours = [one for one in entities if one.name.startswith(all_of(prefix))]
    size = api.location.max_message_size
    findings += together({one.name: findings_of(one, max_message_size=size, tier=tier) for one in ours})
    if not ours:
        findings.append(_finding("note", "queues", f"there are none yet that begin with {all_of(prefix)}"))
    return findings


def findings_of(queue: QueueProperties, *, max_message_size: int, tier: str) -> list[Finding]:
    """What is to be said of the settings of *queue*; nothing if all is as it should be."""
    return [*_kind(queue), *_deliveries(queue), *_life(queue), *_size(queue, max_message_size, tier)]


def together(findings: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """*findings*, by the names of queues. What is said of several is said once: each of ours has many lanes."""
    alike: dict[tuple[Level, str, str], list[tuple[str, Finding]]] = {}
    for name, of_one in findings.items():
        for one in of_one:
            key = (one.level, one.text.replace(name, "{}"), one.remedy.replace(name, "{}"))
            alike.setdefault(key, []).append((name, one))
    return [_of_all(several) for several in alike.values()]


def _of_all(several: Sequence[tuple[str, Finding]]) -> Finding:
    name, first = several[0]
    if len(several) == 1:
        return first
    text = f"{first.text}; and so do {len(several) - 1} more: {', '.join(other for other, _ in several[1:])}"
    remedy = f"{first.remedy}, and the same for the others" if first.remedy else ""
    return Finding(level=first.level, subject=name, text=text, remedy=remedy)


def _durability(api: Api) -> Finding:
    if api.location.is_encrypted:
        text = "a message is confirmed once Service Bus has stored it more than once; there is nothing to configure"
        return _finding("ok", "durability", text)
    text = f"{api.location.shown} is an emulator: whether it keeps what it confirms, nobody can ask it"
    return _finding("note", "durability", text)


def _lock(longest_run: float | None) -> Iterable[Finding]:
    if longest_run is not None and longest_run > LONGEST_LOCK:
        text = f"the longest run takes {longest_run:g} s, and a lock lasts {LONGEST_LOCK} s at most: it is renewed"
        yield _finding("ok", "lock and run", text)


def _kind(queue: QueueProperties) -> Iterable[Finding]:
    name = queue.name
    if queue.requires_session:
        text = f"{name} requires sessions: no worker can receive from it"
        yield _finding("danger", name, text, f"delete it, and have it made anew without: {_delete(name)}")
    if queue.forward_to:
        text = f"{name} forwards its messages to {queue.forward_to}, where no worker looks"
        yield _finding("danger", name, text, _set(name, "--forward-to ''"))
    if queue.forward_dead_lettered_messages_to:
        text = f"{name} forwards its dead letters to {queue.forward_dead_lettered_messages_to}: they are not shown here"
        yield _finding("warning", name, text, _set(name, "--forward-dead-lettered-messages-to ''"))
    if (status := str(queue.status or "Active").rpartition(".")[2]).lower() != "active":
        yield _finding(
            "danger", name, f"{name} is {status}: it does not take or give messages", _set(name, "--status Active")
        )
    if queue.requires_duplicate_detection:
        text = f"{name} drops a second message of the same id for {queue.duplicate_detection_history_time_window}"
        yield _finding("note", name, text)


def _deliveries(queue: QueueProperties) -> Iterable[Finding]:
    name, count, lock = queue.name, queue.max_delivery_count, _span(queue.lock_duration)
    if count is not None and count < _FEWEST_DELIVERIES:
        text = f"{name} dead-letters a message after {count} deliveries, also those that were handed back unharmed"
        yield _finding("warning", name, text, _set(name, "--max-delivery-count 2000"))
    if lock is not None and lock < _SHORTEST_LOCK:
        text = f"{name} locks for {lock.total_seconds():g} s: a worker that stops for so long loses its messages"
        yield _finding("note", name, text, _set(name, "--lock-duration PT1M"))


def _life(queue: QueueProperties) -> Iterable[Finding]:
    name = queue.name
    life, idle = _span(queue.default_message_time_to_live), _span(queue.auto_delete_on_idle)
    if life is not None and life < _SHORTEST_LIFE:
        is_kept = bool(queue.dead_lettering_on_message_expiration)
        end = "moves them to the dead letters" if is_kept else "throws them away"
        text = f"{name} lets messages wait for {life.total_seconds() / 3600:.3g} h, and then {end}"
        yield _finding(
            "warning" if is_kept else "danger", name, text, _set(name, "--default-message-time-to-live P14D")
        )
    if idle is not None and idle < dt.timedelta(days=3650):
        text = f"{name} is deleted when nobody uses it for {idle.total_seconds() / 3600:.3g} h, with all in it"
        yield _finding("warning", name, text, _set(name, "--auto-delete-on-idle P10675199D"))


def _size(queue: QueueProperties, max_message_size: int, tier: str) -> Iterable[Finding]:
    kilobytes = queue.max_message_size_in_kilobytes
    limit = kilobytes * 1024 if kilobytes else 262_144 if tier.lower() in ("standard", "basic") else None
    if limit is not None and limit < max_message_size:
        text = f"{queue.name} takes messages of up to {limit} bytes, and {max_message_size} are counted on"
        yield _finding("warning", queue.name, text, f"write max_message_size={limit} into the broker's URL")


def _span(value: dt.timedelta | str | None) -> dt.timedelta | None:
    return value if isinstance(value, dt.timedelta) else None


def _finding(level: Level, subject: str, text: str, remedy: str = "") -> Finding:
    return Finding(level=level, subject=subject, text=text, remedy=remedy)


def _set(name: str, option: str) -> str:
    return f"az servicebus queue update --name {name} {option} --namespace-name NAMESPACE --resource-group GROUP"


def _delete(name: str) -> str:
    return f"az servicebus queue delete --name {name} --namespace-name NAMESPACE --resource-group GROUP"
