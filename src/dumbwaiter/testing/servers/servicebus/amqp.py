"""The double's AMQP 1.0 endpoint, on Proton: links to queues, their management nodes, and claims by token.

One thread runs it. A message is settled towards its sender once it is in the store.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import cproton
from proton import Condition, Delivery, Endpoint, Handler, Link, Message, Terminus, symbol
from proton.reactor import Container

from dumbwaiter.testing.servers.servicebus.kept import Kept
from dumbwaiter.testing.servers.servicebus.operations import Answer, operate
from dumbwaiter.testing.servers.servicebus.store import Entity, LockLostError, Store
from dumbwaiter.testing.servers.servicebus.tokens import Key, key_of
from dumbwaiter.testing.servers.servicebus.wire import due_of, parts, shown, texts

CLAIMS = "$cbs"
MANAGEMENT = "/$management"
LARGEST_MESSAGE = 262_144
"""Bytes: that of the standard tier."""
_CREDIT = 1000
_TICK = 0.02
_TRACKING: Any = {symbol("tracking-id"): "double"}
"""What the service adds to each of its errors; its clients rely on that there is something."""


class AmqpEndpoint(Handler):
    """Serves *store* at *port* of *host*; *keys* are those that tokens may be signed with, by name."""

    def __init__(self, store: Store, keys: Mapping[str, Key], host: str, port: int) -> None:
        super().__init__()
        self._store, self._keys = store, keys
        self._place = f"{host}:{port}"
        self._senders: dict[str, deque[Link]] = {}
        self._replies: dict[tuple[str, str], Link] = {}
        self._claimed: set[str] = set()

    def run(self) -> None:
        """Serve until the process ends."""
        Container(self).run()

    # --- events ---

    def on_reactor_init(self, event: Any) -> None:
        event.reactor.listen(self._place)
        event.reactor.schedule(_TICK, self)

    def on_timer_task(self, event: Any) -> None:
        """End locks and delays, and close links to queues that are gone."""
        for entity in self._store.tick(time.time()):
            self._serve(entity)
        for name in [name for name in self._senders if name not in self._store.entities]:
            for link in self._senders.pop(name):
                link.condition = Condition("amqp:not-found", f"The messaging entity '{name}' was deleted.", _TRACKING)
                link.close()
        event.reactor.schedule(_TICK, self)

    def on_connection_remote_open(self, event: Any) -> None:
        event.connection.open()

    def on_connection_remote_close(self, event: Any) -> None:
        event.connection.close()

    def on_transport_closed(self, event: Any) -> None:
        """A connection is over: its links too. Locks are not."""
        if event.connection is None:
            return
        name = _name_of(event)
        self._claimed.discard(name)
        self._replies = {key: link for key, link in self._replies.items() if key[0] != name}
        self._keep_links(lambda link: link.connection != event.connection)

    def on_session_remote_open(self, event: Any) -> None:
        event.session.open()

    def on_session_remote_close(self, event: Any) -> None:
        event.session.close()

    def on_link_remote_open(self, event: Any) -> None:
        """Attach: to $cbs, the management node of a queue, or a queue."""
        link = event.link
        address = _address_of(link)
        name = address.removesuffix(MANAGEMENT)
        if address != CLAIMS and _name_of(event) not in self._claimed:
            return _refuse(link, "amqp:unauthorized-access", f"Unauthorized access to '{name}': a claim is required.")
        if address != CLAIMS and name not in self._store.entities:
            return _refuse(link, "amqp:not-found", f"The messaging entity '{name}' could not be found.")
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        link.rcv_settle_mode, link.snd_settle_mode = link.remote_rcv_settle_mode, link.remote_snd_settle_mode
        link.max_message_size = LARGEST_MESSAGE
        link.open()
        if link.is_receiver:
            link.flow(_CREDIT)
        elif name != address or address == CLAIMS:
            self._replies[_name_of(event), address] = link
        else:
            self._senders.setdefault(name, deque()).append(link)
        return None

    def on_link_remote_close(self, event: Any) -> None:
        event.link.close()
        self._keep_links(lambda link: link != event.link)

    on_link_remote_detach = on_link_remote_close

    def on_link_flow(self, event: Any) -> None:
        """Credit came for a link to somebody who receives; who drains it gets the rest of it taken back at once."""
        link = event.link
        entity = self._store.entities.get(_address_of(link))
        if link.is_sender and entity is not None and link.state & Endpoint.LOCAL_ACTIVE:
            self._serve(entity)
            if link.drain_mode:
                link.drained()

    def on_delivery(self, event: Any) -> None:
        """A message came, or the outcome of one that was handed out."""
        link, delivery = event.link, event.delivery
        if link.is_sender:
            if delivery.updated:
                self._settle(link, delivery)
        elif delivery.readable and not delivery.partial:
            raw = link.recv(delivery.pending) or b""
            link.advance()
            link.flow(1)
            self._take_in(event, link, delivery, bytes(raw))

    # --- messages ---

    def _take_in(self, event: Any, link: Any, delivery: Any, raw: bytes) -> None:
        try:
            refusal = self._store_or_answer(event, _address_of(link), raw)
        except ValueError as error:
            refusal = ("amqp:decode-error", str(error))
        if refusal is not None:
            _reject(delivery, *refusal)
        else:
            delivery.update(Delivery.ACCEPTED)
            delivery.settle()

    def _store_or_answer(self, event: Any, address: str, raw: bytes) -> tuple[str, str] | None:
        """Do what the message *raw* is for. Returns the condition and reason when it is refused."""
        entity = self._store.entities.get(address.removesuffix(MANAGEMENT))
        if address == CLAIMS:
            self._answer(event, raw, self._claim)
            return None
        if entity is None:
            return "amqp:not-found", "The messaging entity was deleted."
        if address.endswith(MANAGEMENT):
            self._answer(event, raw, lambda request: operate(self._store, entity, request, time.time()))
        elif len(raw) > LARGEST_MESSAGE:
            text = f"The received message ({len(raw)} bytes) exceeds the limit ({LARGEST_MESSAGE} bytes)."
            return "amqp:link:message-size-exceeded", text
        else:
            self._store.send(entity, [(part, due_of(part)) for part in parts(raw)], time.time())
        self._serve(entity)
        return None

    def _claim(self, request: Message) -> Answer:
        key = key_of(str(request.body), self._keys, now=time.time())
        if key is None:
            return Answer(401, "InvalidSignature: The token has an invalid signature.", condition="amqp:unauthorized")
        return Answer(202, "Accepted")

    def _answer(self, event: Any, raw: bytes, ask: Callable[[Message], Answer]) -> None:
        request = Message()
        request.decode(raw)
        answer = ask(request)
        address = _address_of(event.link)
        prefix = ("status-code", "status-description") if address == CLAIMS else ("statusCode", "statusDescription")
        if address == CLAIMS and answer.status == 202:
            self._claimed.add(_name_of(event))
        properties: dict[str, Any] = dict(zip(prefix, (answer.status, answer.text), strict=True))
        if answer.condition:
            properties["errorCondition"] = answer.condition
        link: Any = self._replies.get((_name_of(event), address))
        if link is not None:
            reply = Message(correlation_id=request.id, properties=properties, body=answer.body)
            link.delivery(uuid.uuid4().bytes)
            link.stream(reply.encode())
            link.advance()

    def _serve(self, entity: Entity) -> None:
        """Hand out what is ready to those who have credit, in turn."""
        links = self._senders.get(entity.name, deque())
        while any(link.credit > 0 for link in links):
            if links[0].credit <= 0:
                links.rotate(-1)
                continue
            taken = self._store.take(entity, time.time())
            if taken is None:
                return
            self._hand_out(links[0], entity, *taken)
            links.rotate(-1)

    def _hand_out(self, link: Any, entity: Entity, token: uuid.UUID, kept: Kept) -> None:
        until = self._store.locked_until(entity, token)
        delivery = link.delivery(token.bytes_le)
        link.stream(shown(kept, locked_until=until))
        link.advance()
        if link.snd_settle_mode == Link.SND_SETTLED:
            delivery.settle()
            self._store.complete(entity, token, time.time())

    def _settle(self, link: Any, delivery: Any) -> None:
        entity = self._store.entities.get(_address_of(link))
        tag = _tag_of(delivery)
        try:
            if entity is not None and len(tag) == 16:  # answers of a management node have no lock
                self._apply(entity, uuid.UUID(bytes_le=tag), delivery)
                self._serve(entity)
        except LockLostError:
            text = "The lock supplied is invalid. Either the lock expired, or the message has already been removed."
            _reject(delivery, "com.microsoft:message-lock-lost", text)
        else:
            delivery.update(delivery.remote_state)
            delivery.settle()

    def _apply(self, entity: Entity, token: uuid.UUID, delivery: Any) -> None:
        now, state = time.time(), delivery.remote_state
        if state == Delivery.ACCEPTED:
            self._store.complete(entity, token, now)
        elif state == Delivery.REJECTED:
            condition = delivery.remote.condition
            info = (condition.info if condition is not None else None) or {}
            self._store.dead_letter(
                entity, token, now, *texts(info, ("DeadLetterReason", "DeadLetterErrorDescription"))
            )
        elif state in (Delivery.MODIFIED, Delivery.RELEASED):
            self._store.abandon(entity, token, now, counted=state == Delivery.MODIFIED)

    def _keep_links(self, keep: Callable[[Link], bool]) -> None:
        self._senders = {name: deque(filter(keep, links)) for name, links in self._senders.items()}


def _address_of(link: Link) -> str:
    """What *link* is to: without the address of the server, and in lower case."""
    terminus = link.remote_target if link.is_receiver else link.remote_source
    address = str(terminus.address or "")
    return (address.split("/", 3)[-1] if "://" in address else address).lower()


def _name_of(event: Any) -> str:
    return str(event.connection.remote_container)


def _tag_of(delivery: Any) -> bytes:
    # Proton's own Delivery.tag takes it for text.
    tag = cproton.lib.pn_delivery_tag(delivery._impl)  # noqa: SLF001
    return bytes(cproton.ffi.buffer(tag.start, tag.size))


def _refuse(link: Link, condition: str, text: str) -> None:
    """Attach without a terminus, as AMQP wants of a link that is refused, and detach with the reason."""
    link.source.type = link.target.type = Terminus.UNSPECIFIED
    link.open()
    link.condition = Condition(condition, text, _TRACKING)
    link.close()


def _reject(delivery: Any, condition: str, text: str) -> None:
    """Settle *delivery* with the reason why it is not taken."""
    delivery.local.condition = Condition(condition, text, _TRACKING)
    delivery.update(Delivery.REJECTED)
    delivery.settle()
