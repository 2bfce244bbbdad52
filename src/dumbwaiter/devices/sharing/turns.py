"""A worker's turns: it asks the policy whether one has come, and keeps what it was told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from dumbwaiter.devices.sharing.steps import Step, View, holding_in_vain
from dumbwaiter.policies import admission
from dumbwaiter.policies.admission import Device, NeverFits, Rung, Seat, Wait

Decide = Callable[[Device, "dict[int, Seat]", int, float, Sequence[Rung]], "admission.Grant | Wait | NeverFits"]

TRY_AGAIN_AFTER = 1.0
"""Seconds before a model that never fits, or that could not be woken, is tried again."""
PROBE_PAUSE = 5.0
"""Seconds between two measurements, each of which stops everybody else."""
_log = logging.getLogger(__name__)


class Turns:
    """*waits* is why the turn has not come, None if nothing is waited for."""

    def __init__(self, decide: Decide) -> None:
        self.waits: Wait | NeverFits | None = None
        self._decide = decide
        self._not_before = self._no_probe_before = 0.0

    def put_off(self, now: float) -> None:
        """Nothing can be done just now; later, perhaps."""
        self._not_before = now + TRY_AGAIN_AFTER

    def is_put_off(self, step: Step, now: float) -> bool:
        """Whether it is too early to try again; then *step* says when it is not."""
        if now < self._not_before:
            step.look_at = self._not_before
        return now < self._not_before

    def may_probe(self, now: float) -> bool:
        """Whether the last measurement was long enough ago."""
        return now >= self._no_probe_before

    def ask(self, step: Step, view: View, ladder: Sequence[Rung]) -> Rung | None:
        """Whether its turn has come: what it may run then."""
        me, now = view.me, view.now
        seat = view.seats[me]
        decision = self._decide(view.device, view.seats, me, now, ladder)
        if isinstance(decision, admission.Grant):
            self.waits = None
            if seat.probes:
                self._no_probe_before = now + PROBE_PAUSE
            step.seat = admission.take(seat, decision, now)
            return Rung(decision.size, decision.nbytes, decision.seconds)
        is_news = not isinstance(self.waits, type(decision))
        self.waits = decision
        if isinstance(decision, NeverFits):
            if is_news:
                _log.error("%s", decision.reason)
            step.seat = admission.withdraw(seat)
            self.put_off(now)
            self.is_put_off(step, now)
            return None
        step.seat = admission.looked(seat, now)
        step.look_at = decision.until
        if is_news:
            step.rings += holding_in_vain(view)
        return None
