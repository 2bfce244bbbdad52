"""Replies: one core NATS subject for each inbox, which nobody stores. Its owner listens, or the reply is refused."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from dumbwaiter.brokers.inboxes import LineInbox
from dumbwaiter.brokers.nats.headers import attributes_of
from dumbwaiter.envelope import from_attributes
from dumbwaiter.errors import BadInputError

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


class NatsInbox(LineInbox):
    """Replies that were pushed here. A lost connection loses those under way; the address stays."""

    def __init__(self, address: str, link: Link, *, require_open: Callable[[], None]) -> None:
        super().__init__(address, require_open=require_open)
        self._link = link

    async def open(self) -> None:
        """Listen, and return once the server knows."""
        await self._link.subscribe(self.address, self._on_message)
        await self._link.tell([])

    async def close(self) -> None:
        if self._is_open:
            self.dismiss()
            await self._link.forget(self.address)

    async def _on_message(self, message: Msg) -> None:
        try:
            reply = from_attributes(attributes_of(message.headers), message.data)
        except BadInputError:
            return  # no worker of ours wrote it, and nobody waits for it
        self.put([reply])
