"""Whom to tell when a request is over, whether or not anybody still waits for its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dumbwaiter.asking.alarms import Alarm, Alarms


class Endings:
    """The ends that are waited for, by the requests' ids; *alarms* bring those that nobody tells of."""

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._awaited: dict[str, tuple[str, Callable[[], object], Alarm]] = {}

    def __len__(self) -> int:
        return len(self._awaited)

    def tell(self, id_: str, queue: str, at_last: float, over: Callable[[], object]) -> None:
        """Call *over* once: when come() says that *id_*, which went to *queue*, is over, or *at_last* (monotonic)."""
        alarm = self._alarms.set(at_last, lambda: self.come(id_))
        self._awaited[id_] = (queue, over, alarm)

    def come(self, id_: str) -> None:
        """*id_* is over: it was answered, or was never sent. What nobody waits for is passed over."""
        if (awaited := self._awaited.pop(id_, None)) is not None:
            _, over, alarm = awaited
            self._alarms.silence(alarm)
            over()

    def come_all(self, queue: str | None = None) -> None:
        """Nothing (of *queue*) will be answered any more."""
        for id_ in [id_ for id_, (name, *_) in self._awaited.items() if queue in (None, name)]:
            self.come(id_)
