"""Replies: one core NATS subject for each inbox, which nobody stores. Its owner listens, or the reply is refused."""

from __future__ import annotations

import re
import secrets
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from dumbwaiter.brokers.contract import Inbox
from dumbwaiter.brokers.lines import Line
from dumbwaiter.brokers.nats.headers import attributes_of
from dumbwaiter.envelope import from_attributes
from dumbwaiter.errors import BadInputError, BrokerClosedError
from dumbwaiter.message import Message

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from dumbwaiter.brokers.nats.link import Link

_SECRET = 16


def new_address(prefix: str) -> str:
    """A fresh inbox's subject."""
    return f"{prefix}.inbox.{secrets.token_hex(_SECRET)}"


def is_address(prefix: str, address: str) -> bool:
    """Whether *address* can be an inbox of ours. Callers write it, so anything else must never be published to."""
    return re.fullmatch(rf"{re.escape(prefix)}\.inbox\.[0-9a-f]{{{2 * _SECRET}}}", address) is not None


class NatsInbox(Inbox):
    """Replies that came, oldest first, until they are read."""

    def __init__(self, address: str, link: Link, *, require_open: Callable[[], None]) -> None:
        self.address = address
        self._link = link
        self._require_broker = require_open
        self._is_open = True
        self._messages: deque[Message] = deque()
        self._line: Line[Message] = Line(lambda: None, lambda items: self._messages.extendleft(reversed(items)))

    async def open(self) -> None:
        """Listen, and return once the server knows."""
        await self._link.subscribe(self.address, self._on_message)
        await self._link.tell([])

    async def receive(self, *, max_messages: int, max_wait: float) -> list[Message]:
        self._require_open()
        take = partial(self._take, max_messages)
        max_wait = max_wait if max_messages > 0 else 0.0
        messages = await self._line.receive(self, take, max_wait, check_open=self._require_open)
        self._require_open()
        return messages

    async def close(self) -> None:
        if self._is_open:
            self.leave()
            await self._link.forget(self.address)

    def leave(self) -> None:
        """Send readers away: this inbox is closed."""
        self._is_open = False
        with self._line.lock:
            self._line.dismiss(self)

    def _take(self, limit: int) -> list[Message]:
        return [self._messages.popleft() for _ in range(min(limit, len(self._messages)))]

    def _require_open(self) -> None:
        self._require_broker()
        if not self._is_open:
            raise BrokerClosedError("this inbox is closed; open another with open_inbox()")

    async def _on_message(self, message: Msg) -> None:
        try:
            reply = from_attributes(attributes_of(message.headers), message.data)
        except BadInputError:
            return  # no worker of ours wrote it, and nobody waits for it
        with self._line.lock:
            self._messages.append(reply)
            self._line.changed()
