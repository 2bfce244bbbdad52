"""What inboxes do alike: readers in line for what came, and one task that asks for more as long as somebody reads."""

from __future__ import annotations

import asyncio
import contextlib
from abc import abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

from dumbwaiter.brokers.contract import Inbox
from dumbwaiter.brokers.lines import Line
from dumbwaiter.errors import BrokerClosedError, BrokerError, BrokerUnavailableError
from dumbwaiter.message import Message
from dumbwaiter.tasks import end

Pulled: TypeAlias = tuple[Sequence[tuple[Hashable, Message]], Coroutine[Any, Any, None] | None]
"""Replies, each with what tells it apart; and, if any came, the work that tells the product so."""
_REMEMBERED = 10_000
"""A reply that comes again because the product was not told of the first time is known among so many."""


class LineInbox(Inbox):
    """Replies that came, oldest first, until they are read. *require_open* raises once the broker is closed."""

    def __init__(self, address: str, *, require_open: Callable[[], None]) -> None:
        self.address = address
        self._require_broker = require_open
        self._is_open = True
        self._error: BrokerError | None = None
        self._failures = 0
        self._messages: deque[Message] = deque()
        self._line: Line[Message] = Line(lambda: None, lambda items: self._messages.extendleft(reversed(items)))

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it."""
        return self._is_open

    async def receive(self, *, max_messages: int, max_wait: float) -> list[Message]:
        self._require_open()
        if max_messages < 1:
            return []
        failures = self._failures

        def join() -> None:
            nonlocal failures
            self._join()
            failures = self._failures

        messages = await self._line.receive(self, partial(self._take, max_messages), max_wait, check_open=join)
        self._require_open()
        if not messages and (error := self._fault_since(failures)) is not None:
            # A new one each time: an error that is raised again and again drags all its tracebacks along.
            raise BrokerUnavailableError(str(error)) from error
        return messages

    def put(self, messages: Iterable[Message]) -> None:
        """These came."""
        with self._line.lock:
            self._messages.extend(messages)
            self._line.changed()

    def fail(self, error: BrokerError) -> None:
        """Nobody can tell any more what comes: whoever waits hears of it at once."""
        self._error = error
        self._failures += 1
        with self._line.lock:
            self._line.dismiss(self)

    def dismiss(self) -> None:
        """Send readers away: this inbox is closed."""
        self._is_open = False
        with self._line.lock:
            self._line.dismiss(self)

    def _join(self) -> None:
        """A reader is about to stand in line, which from now on is told of failures. Raises where it cannot be."""
        self._require_open()

    def _fault_since(self, failures: int) -> BrokerError | None:
        """Why a reader that joined after so many *failures* got nothing, if not because nothing came."""
        return self._error if self._failures > failures else None

    def _take(self, limit: int) -> list[Message]:
        return [self._messages.popleft() for _ in range(min(limit, len(self._messages)))]

    def _require_open(self) -> None:
        self._require_broker()
        if not self._is_open:
            raise BrokerClosedError("this inbox is closed; open another with open_inbox()")


class PolledInbox(LineInbox):
    """Of a product that is asked for replies, and told once they are here."""

    def __init__(self, address: str, *, require_open: Callable[[], None]) -> None:
        super().__init__(address, require_open=require_open)
        self._came: OrderedDict[Hashable, None] = OrderedDict()
        self._readers = 0
        self._reading: asyncio.Task[None] | None = None
        self._beside: set[asyncio.Task[None]] = set()

    async def receive(self, *, max_messages: int, max_wait: float) -> list[Message]:
        self._readers += 1
        try:
            return await super().receive(max_messages=max_messages, max_wait=max_wait)
        finally:
            self._readers -= 1

    @abstractmethod
    async def open(self) -> None:
        """Make it. Raises BrokerUnavailableError."""

    async def leave(self) -> None:
        """Send readers away, and ask no more: this inbox is closed."""
        self.dismiss()
        await end([self._reading, *self._beside])

    @abstractmethod
    async def _pull(self) -> Pulled:
        """Ask the product, and return as soon as there are some. Whatever it raises, readers hear of it."""

    def _join(self) -> None:
        super()._join()
        # Here and not before: what asked until a moment ago may have failed, and told only those who stood in line.
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        try:
            while self._readers and self._is_open:
                self._take_in(await self._pull())
        except Exception as error:  # readers must not wait in vain, whatever the client raises
            self.fail(
                error if isinstance(error, BrokerError) else BrokerUnavailableError(f"reading an inbox failed: {error}")
            )
        finally:
            self._reading = None

    def _take_in(self, pulled: Pulled) -> None:
        came, forget = pulled
        if forget is not None:
            # Nobody waits for this; a reply that comes again because it failed is known.
            task = asyncio.get_running_loop().create_task(_quietly(forget))
            self._beside.add(task)
            task.add_done_callback(self._beside.discard)
        new = {key: message for key, message in came if key not in self._came}
        self._came.update(dict.fromkeys(new))
        while len(self._came) > _REMEMBERED:
            self._came.popitem(last=False)
        self.put(new.values())


async def _quietly(forget: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(Exception):  # the product shows the reply again, and it is known
        await forget
