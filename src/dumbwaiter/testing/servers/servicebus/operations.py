"""What a queue's management node does: renew locks, settle by lock token, peek, schedule, cancel.

Source: https://learn.microsoft.com/azure/service-bus-messaging/service-bus-amqp-request-response
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from proton import UNDESCRIBED, Array, Data, Message

from dumbwaiter.testing.servers.servicebus.store import Entity, LockLostError, Store
from dumbwaiter.testing.servers.servicebus.wire import due_of, shown, texts

_LOST = "The lock supplied is invalid. Either the lock expired, or the message has already been removed from the queue."
_LARGEST_PEEK = 200_000


class Answer(NamedTuple):
    """A *status* as in HTTP with its *text*, the *body*, and for a failure its *condition*."""

    status: int
    text: str = "OK"
    body: Any = None
    condition: str = ""


def operate(store: Store, entity: Entity, request: Message, now: float) -> Answer:
    """Do what *request* asks of the management node of *entity*."""
    properties: dict[str, Any] = request.properties or {}
    name = str(properties.get("operation", "")).removeprefix("com.microsoft:")
    operation = _OPERATIONS.get(name)
    if operation is None:
        return Answer(501, f"The operation '{name}' is not built.", condition="amqp:not-implemented")
    try:
        with store.lock:
            return operation(store, entity, dict(cast(Any, request.body) or {}), now)
    except LockLostError:
        return Answer(410, _LOST, condition="com.microsoft:message-lock-lost")


def _renew(store: Store, entity: Entity, body: dict[str, Any], now: float) -> Answer:
    ends = [store.renew(entity, token, now) for token in _items(body["lock-tokens"])]
    times = Array(cast(Any, UNDESCRIBED), Data.TIMESTAMP, *(int(end * 1000) for end in ends))
    return Answer(200, body={"expirations": times})


def _settle(store: Store, entity: Entity, body: dict[str, Any], now: float) -> Answer:
    status = str(body["disposition-status"])
    for token in _items(body["lock-tokens"]):  # those before one that is lost are settled: the worse of two readings
        if status == "completed":
            store.complete(entity, token, now)
        elif status == "abandoned":
            store.abandon(entity, token, now)
        elif status == "suspended":
            reason = texts(body, ("deadletter-reason", "deadletter-description"))
            store.dead_letter(entity, token, now, *reason)
        else:
            return Answer(400, f"'{status}' is no status.", condition="com.microsoft:argument-error")
    return Answer(200)


def _peek(_store: Store, entity: Entity, body: dict[str, Any], _now: float) -> Answer:
    first, limit = int(body["from-sequence-number"]), int(body["message-count"])
    found: list[dict[str, Any]] = []
    nbytes = 0
    for number in sorted(number for number in entity.kept if number >= first)[:limit]:
        raw = shown(entity.kept[number])
        nbytes += len(raw)
        if found and nbytes > _LARGEST_PEEK:
            break
        found.append({"message": raw})
    return Answer(200, body={"messages": found}) if found else Answer(204, "No messages")


def _schedule(store: Store, entity: Entity, body: dict[str, Any], now: float) -> Answer:
    raws = [bytes(one["message"]) for one in _items(body["messages"])]
    numbers = store.send(entity, [(raw, due_of(raw)) for raw in raws], now)
    return Answer(200, body={"sequence-numbers": Array(cast(Any, UNDESCRIBED), Data.LONG, *numbers)})


def _cancel(store: Store, entity: Entity, body: dict[str, Any], _now: float) -> Answer:
    for number in _items(body["sequence-numbers"]):
        if not store.cancel(entity, int(number)):
            return Answer(404, "No such scheduled message.", condition="com.microsoft:message-not-found")
    return Answer(200)


def _items(value: Any) -> list[Any]:
    return list(value.elements) if isinstance(value, Array) else list(value)


_OPERATIONS: dict[str, Callable[[Store, Entity, dict[str, Any], float], Answer]] = {
    "renew-lock": _renew,
    "update-disposition": _settle,
    "peek-message": _peek,
    "schedule-message": _schedule,
    "cancel-scheduled-message": _cancel,
}
