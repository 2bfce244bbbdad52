"""Receives in progress, on the event loop's side: which are in the writer's hands, which wait, when to look again."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from dumbwaiter.brokers.sqlite.operations import PassOn, Receive, StopWaiting
from dumbwaiter.brokers.sqlite.settling import HandBack
from dumbwaiter.errors import BrokerError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from dumbwaiter.brokers.sqlite.operations import Operation

#: Producers that only know SQL wake nobody: waiting receives look by themselves so often, in seconds.
SAFETY_POLL_SECONDS = 0.5


class PendingReceive(Receive):
    """A receive of the contract: submitted again and again until it has messages or its caller's patience ends."""

    def __init__(self, owner: Receivers, queue: str, **settings: Any) -> None:
        super().__init__(queue, **settings)
        self.owner = owner
        self.is_over = False
        self.was_kicked = False

    def finish(self) -> None:
        self.owner.landed(self)


class Receivers:
    """All receives of one broker. *probe* looks at a queue number: is something ready, and when is the next due."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        submit: Callable[[Operation], None],
        probe: Callable[[int], tuple[bool, float | None]],
    ) -> None:
        self._loop = loop
        self._submit = submit
        self._probe = probe
        self._flying: set[PendingReceive] = set()
        self._idle: dict[int, deque[PendingReceive]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def launch(self, receive: PendingReceive) -> None:
        """Let the writer try *receive*."""
        self._flying.add(receive)
        self._submit(receive)

    def landed(self, receive: PendingReceive) -> None:
        """The writer has tried *receive*."""
        self._flying.discard(receive)
        if receive.future is None or receive.future.done():
            self._clean_up(receive)
        elif receive.error is not None:
            receive.future.set_exception(receive.error)
            self._pass_on_a_kick(receive)
        elif receive.result or not receive.waits:
            receive.future.set_result(receive.result)
            if receive.was_kicked or len(receive.result) == receive.limit:
                self._wake_one(receive.queue_id, also_elsewhere=receive.was_kicked)
        elif receive.is_over:
            receive.future.set_result([])
            self._submit(StopWaiting(receive))
            self._pass_on_a_kick(receive)
        elif receive.was_kicked:
            receive.was_kicked = False
            self.launch(receive)
        else:
            self._idle.setdefault(receive.queue_id, deque()).append(receive)
            self._look_again_at(min(receive.next_due or float("inf"), time.monotonic() + SAFETY_POLL_SECONDS))

    def kicked(self, queue_id: int) -> None:
        """Another process says that there is something in this queue."""
        self._wake_one(queue_id, also_elsewhere=True)

    def expire(self, receive: PendingReceive) -> None:
        """The caller's patience is at its end; what the writer brings now still counts."""
        receive.is_over = True
        if self._remove_idle(receive):
            self._submit(StopWaiting(receive))
            if receive.future is not None and not receive.future.done():
                receive.future.set_result([])

    def drop(self, receive: PendingReceive) -> None:
        """The caller was cancelled: nothing may stay locked, nobody may be left unwoken."""
        if self._remove_idle(receive):
            self._submit(StopWaiting(receive))
        elif receive not in self._flying and receive.future is not None:
            # The result came in the same moment as the cancellation.
            self._clean_up(receive)

    def close(self, error: BrokerError) -> None:
        """Everything that waits raises *error*."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = [*self._flying, *(receive for idle in self._idle.values() for receive in idle)]
        self._idle.clear()
        for receive in waiting:
            if receive.future is not None and not receive.future.done():
                receive.future.set_exception(error)

    def _clean_up(self, receive: PendingReceive) -> None:
        if receive.error is None and receive.result:
            self._submit(HandBack(receive.token, receive.token))
        elif receive.error is None and receive.waits:
            self._submit(StopWaiting(receive))
        self._pass_on_a_kick(receive)

    def _pass_on_a_kick(self, receive: PendingReceive) -> None:
        if receive.was_kicked:
            receive.was_kicked = False
            self._wake_one(receive.queue_id, also_elsewhere=True)

    def _wake_one(self, queue_id: int, *, also_elsewhere: bool) -> None:
        idle = self._idle.get(queue_id)
        if idle:
            self.launch(idle.popleft())
            return
        if not also_elsewhere:
            return
        # One that is in the writer's hands may have looked before that message came.
        for receive in self._flying:
            if receive.queue_id == queue_id and receive.waits:
                receive.was_kicked = True
                return
        self._submit(PassOn(queue_id))

    def _remove_idle(self, receive: PendingReceive) -> bool:
        idle = self._idle.get(receive.queue_id)
        if idle is None or receive not in idle:
            return False
        idle.remove(receive)
        return True

    def _look_again_at(self, when: float) -> None:
        delay = max(when - time.monotonic(), 0.0)
        moment = self._loop.time() + delay
        if self._timer is not None:
            if self._timer.when() <= moment:
                return
            self._timer.cancel()
        self._timer = self._loop.call_later(delay, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        now = time.monotonic()
        again = float("inf")
        for queue_id, idle in list(self._idle.items()):
            if not idle:
                del self._idle[queue_id]
                continue
            try:
                is_ready, due = self._probe(queue_id)
            except BrokerError as error:
                self.close(error)
                return
            if is_ready or (due is not None and due <= now):
                self.launch(idle.popleft())
            again = min(again, due if due is not None and due > now else again, now + SAFETY_POLL_SECONDS)
        if again != float("inf"):
            self._look_again_at(again)
