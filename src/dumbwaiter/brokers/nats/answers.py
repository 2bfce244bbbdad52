"""What is asked of the server, and what it answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from nats.aio.msg import Msg

NO_RESPONDERS = "503"

Question: TypeAlias = tuple[str | None, bytes, dict[str, str] | None]
"""Subject, payload and headers. Without a subject it is put to ourselves, and comes back behind all answers."""


def status_of(message: Msg) -> str | None:
    """The status code of a message that is none but a word of the server's own."""
    return None if message.reply or not message.headers else message.headers.get("Status")


class Answers:
    """The answers to some questions. *done* is their future; *sent_at* when they were asked, in time.monotonic()."""

    __slots__ = ("done", "missing", "received", "sent_at")

    def __init__(self, count: int) -> None:
        self.received: list[Msg | None] = [None] * count
        self.missing = count
        self.sent_at = time.monotonic()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, place: int, message: Msg) -> bool:
        """Take the answer to question *place*; whether no further one can come."""
        if self.received[place] is None:
            self.received[place] = message
            self.missing -= 1
            if not self.missing and not self.done.done():
                self.done.set_result(None)
        return True


class Several(Answers):
    """Several answers to one question, until *is_last* says so of one."""

    __slots__ = ("is_last", "messages")

    def __init__(self, is_last: Callable[[list[Msg]], bool]) -> None:
        super().__init__(1)
        self.is_last = is_last
        self.messages: list[Msg] = []

    def put(self, place: int, message: Msg) -> bool:
        self.messages.append(message)
        return self.is_last(self.messages) and super().put(place, message)


class Echo(Answers):
    """The answer to a question that we put to ourselves behind *count* others, of which some are *unheard*."""

    __slots__ = ("unheard",)

    def __init__(self, count: int) -> None:
        super().__init__(count + 1)
        self.missing = 1
        self.unheard: set[int] = set()

    def put(self, place: int, message: Msg) -> bool:
        if place == len(self.received) - 1:
            return super().put(place, message)
        if status_of(message) == NO_RESPONDERS:
            self.unheard.add(place)
        return True
