"""Who may still send a message that claims a body: the one place that knows when such a body is nobody's any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from dumbwaiter.message import Message


class Claims:
    """Counts who holds the body that a message claims; *drop* hears of each that is let go unsent.

    Once a message that claims it may have been sent, the body is its receiver's, and stays whoever lets go of it here.
    A body that others need as well (the request was accepted before, say) is not to be held here at all.
    """

    def __init__(self, drop: Callable[[Message], object]) -> None:
        self._drop = drop
        self._held: dict[str, _Holders] = {}

    def hold(self, message: Message) -> None:
        """The body that *message* claims, if it claims one, is needed until let_go()."""
        if message.data_ref is not None:
            self._held.setdefault(message.data_ref, _Holders()).count += 1

    def let_go(self, message: Message, *, sent: bool = False) -> None:
        """One who held it needs it no more. *sent*: the message has reached the broker, or may have."""
        if message.data_ref is None:
            return
        holders = self._held[message.data_ref]
        holders.count -= 1
        holders.sent |= sent
        if not holders.count:
            del self._held[message.data_ref]
            if not holders.sent:
                self._drop(message)


class _Holders:
    __slots__ = ("count", "sent")

    def __init__(self) -> None:
        self.count = 0
        self.sent = False
