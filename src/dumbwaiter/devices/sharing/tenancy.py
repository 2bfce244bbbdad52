"""One worker on a shared device, and its next step there: what it says in its seat, whom it has to wake, how its
runner's memory is to be moved. It decides; ledger_admission.py acts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum, auto

import msgspec

from dumbwaiter.devices.admission import Grant, Moved, Place, What
from dumbwaiter.devices.sharing.standing import Knowledge, introduced
from dumbwaiter.devices.sharing.steps import Step, View, holding_in_vain, waiting
from dumbwaiter.devices.sharing.wishes import Wish, Wishes
from dumbwaiter.policies import admission
from dumbwaiter.policies.admission import IDLE, POLLING, PROBING, RUNNING, Device, NeverFits, Rung, Seat, Wait

Decide = Callable[[Device, "dict[int, Seat]", int, float, Sequence[Rung]], "admission.Grant | Wait | NeverFits"]

_TRY_AGAIN_AFTER = 1.0
"""Seconds before a model that never fits, or that could not be woken, is tried again."""
_HOARD_SECONDS = 1.0
"""After so many idle seconds a worker beside others keeps no more than a look into its queue takes."""
_PROBE_PAUSE = 5.0
"""Seconds between two measurements, each of which stops everybody else."""
_log = logging.getLogger(__name__)


class Stage(Enum):
    """Whether there is a runner: none, one that starts and loads, one that is ready."""

    OUT = auto()
    MOVING_IN = auto()
    IN = auto()


class Tenancy:
    """The state of one worker. The methods but step() note what happened since; step() takes it all into account."""

    def __init__(self, known: Knowledge, *, park_after: float, decide: Decide = admission.decide) -> None:
        self.known = known
        self.wishes = Wishes()
        self.place: Wish[Place] | None = None
        self.stage = Stage.OUT
        self.grants: set[Grant] = set()
        self.receiving: set[Grant] = set()
        self.waits: Wait | NeverFits | None = None
        self._park_after = park_after
        self._decide = decide
        self._moved: tuple[What, Moved] | None = None
        self._is_settling = False
        self._knows_more = True
        self._is_empty = True
        self._most_used = 0
        self._exceeds = False
        self._failed_wakes = 0
        self._not_before = self._no_probe_before = 0.0
        self._waking: tuple[Wish[Grant], Rung] | None = None

    # --- what happened ---

    def settle_in(self, known: Knowledge) -> None:
        """The runner is ready."""
        self.known, self.stage = known, Stage.IN
        self._is_settling = self._is_empty = True
        self._exceeds, self._most_used = False, 0

    def move_out(self) -> None:
        """The runner is gone, and whatever it had been granted."""
        self.stage = Stage.OUT
        for grant in self.grants:
            grant.is_void = True
            grant.is_revoked.set()
        self.grants.clear()
        self.receiving.clear()
        self._moved = self._waking = None

    def learn(self, known: Knowledge) -> None:
        """More is known of the model."""
        self.known, self._knows_more = known, True

    def moved(self, what: What, moved: Moved) -> None:
        """An order was carried out, by the runner that is there or by one that has died since."""
        if self.stage is Stage.IN:
            self._moved = (what, moved)

    def hand_out(self, grant: Grant) -> None:
        """A grant was given to whoever asked."""
        self.grants.add(grant)
        self.receiving.add(grant)

    def received(self, grant: Grant, count: int) -> bool:
        """A receive is over. Whether it was the last that anything was granted for."""
        self.receiving.discard(grant)
        if count:
            self._is_empty = False
        return self.released(grant)

    def released(self, grant: Grant) -> bool:
        """Some of its messages have left the runner. Whether they were the last that anything was granted for."""
        if not grant.outstanding and grant not in self.receiving:
            self.grants.discard(grant)
        return not self.grants

    def used(self, nbytes: int) -> None:
        """A batch took so many bytes of activation, perhaps more than was granted."""
        self._most_used = max(self._most_used, nbytes)

    @property
    def wants_work(self) -> bool:
        """Whether it has to be known if there is work: somebody only polls, and must not hold the device for that."""
        if self.stage is Stage.OUT:
            return self.place is not None and self.place.polls
        return not self.grants and any(wish.polls for wish in self.wishes)

    def found_work(self) -> None:
        """There is work: whoever only polls may ask for the device in earnest."""
        if self.place is not None:
            self.place.polls = False
        for wish in self.wishes:
            wish.polls = False

    def newcomer(self, wall: float) -> Seat:
        """What a process says that has nothing on the device yet."""
        self._knows_more = False
        return introduced(Seat(model=self.known.model, weight=self.known.weight), self.known, wall)

    # --- what is next ---

    def step(self, view: View, *, is_blurred: bool) -> Step:
        """The next step. *is_blurred*: somebody's record cannot be read, so nothing can be given now."""
        seat = view.seats[view.me]
        if (most := view.most) != self.known.most:
            self.learn(replace(self.known, most=most))
        if self.stage is Stage.IN:
            seat = self._noted(seat, view)
        step = Step(seat)
        if is_blurred:
            step.seat = seat if seat.asked_at is None else admission.looked(seat, view.now)
        elif self.stage is Stage.OUT:
            self._step_out(step, view)
        elif self.stage is Stage.IN and not self._deliver_woken(step):
            (self._step_held if step.seat.granted else self._step_free)(step, view)
        return step

    def _noted(self, seat: Seat, view: View) -> Seat:
        """*seat* with what has happened since the last step."""
        if self._is_settling:
            self._is_settling = False
            footprint = self.known.footprint
            full = footprint.full if footprint is not None else seat.full
            seat = admission.give_back(admission.loaded(seat, view.now), view.now)
            seat = msgspec.structs.replace(seat, resident=full, full=full, load_seconds=0.0)
            self._knows_more = True
        if self._moved is not None:
            what, moved = self._moved
            self._moved = None
            seat = self._after(seat, what, moved, view.now)
        if self.grants - self.receiving and seat.doing == POLLING:
            mine = view.with_mine(seat)
            found = admission.found_work(seat, view.now)
            seat = found if seat.polls else admission.go_on(mine.seats, view.me, view.now, seat.seconds)
        # Whoever took more than it was granted says so, and what the next batch takes is seen from the start.
        if 0 < seat.granted < self._most_used:
            self._exceeds = True
            seat = msgspec.structs.replace(seat, granted=self._most_used)
        if self._knows_more and not seat.granted:
            self._knows_more = False
            seat = introduced(seat, self.known, view.wall)
        return seat

    def _after(self, seat: Seat, what: What, moved: Moved, now: float) -> Seat:
        context = self.known.footprint.context if self.known.footprint is not None else 0
        held = context + moved.reserved
        self._is_empty, self._exceeds, self._most_used = True, False, 0
        if what == "park":
            if not moved.is_done:
                _log.warning("model %s cannot be parked: its runner will be ended instead", seat.model)
                self.known = self.known.without_parking()
                self._knows_more = True
                return msgspec.structs.replace(seat, doing=IDLE)
            return msgspec.structs.replace(admission.parked(seat), resident=held)
        if what == "wake":
            if not moved.is_done:
                self._failed_wakes += 1
                self._not_before = now + _TRY_AGAIN_AFTER
                self._waking = None
                seat = admission.give_back(seat, now, was_used=False)
                return msgspec.structs.replace(seat, resident=held, load_seconds=seat.reload_seconds)
            self._failed_wakes = 0
            seat = admission.loaded(seat, now)
        return msgspec.structs.replace(seat, resident=held, full=max(seat.full, held))

    # --- without a runner ---

    def _step_out(self, step: Step, view: View) -> None:
        seat = step.seat
        if self.place is not None and any(not wish.polls for wish in self.wishes):
            self.place.polls = False  # what is in hand already is in no queue any more
        if self.place is None or self.place.polls:
            self.waits = None
            step.seat = seat if seat.asked_at is None else admission.withdraw(seat)
            return
        if view.now < self._not_before:
            step.look_at = self._not_before
            return
        if seat.asked_at is None:
            seat = admission.ask(view.seats, view.me, view.now, probes=self.known.must_be_measured)
        granted = self._ask(step, view.with_mine(seat), ())
        if granted is not None:
            self.stage, step.is_placed = Stage.MOVING_IN, True

    # --- with a grant ---

    def _step_held(self, step: Step, view: View) -> None:
        seat = step.seat
        view = view.with_mine(seat)
        must_end = self._must_end(seat, view)
        if self.grants:
            if not must_end:
                self._prolong(step, view, self.wishes.first(may_poll=not self.receiving))
            elif seat.doing == POLLING:
                self._revoke(step, view)
            return
        wish = self.wishes.first(may_poll=True)
        if not must_end and self._prolong(step, view, wish):
            return
        if not must_end and wish is None:
            if seat.doing != POLLING:
                step.seat = admission.retain(seat, view.now)
            return
        if not self._is_empty:
            step.order = "empty"
            return
        step.seat = admission.give_back(seat, view.now, was_used=seat.doing == RUNNING)
        self._step_free(step, view.with_mine(step.seat))
        if step.seat.granted < seat.granted:
            step.rings += waiting(view)

    def _must_end(self, seat: Seat, view: View) -> bool:
        """Whether what is held has to be given back as soon as nothing runs."""
        return (
            seat.doing == PROBING
            or self._exceeds
            or self._is_idle(seat, view.now)
            or self._hoards(seat, view)
            or admission.who_lacks_room(view.device, view.seats, view.me, view.now) is not None
        )

    def _prolong(self, step: Step, view: View, wish: Wish[Grant] | None) -> bool:
        """Whether *wish* could be granted out of what is held, for nobody needs that."""
        seat = step.seat
        if wish is None:
            return False
        rungs = self.known.all(wish.want, view.wall) if wish.polls else self.known.ladder(wish.want, view.wall)
        fitting = [rung for rung in rungs if rung.nbytes <= seat.granted]
        if not fitting:
            return False
        rung = fitting[-1]
        if not self.grants and not wish.polls:
            largest = max(one.size for one in rungs if one.nbytes <= max(seat.granted, view.room))
            if largest > rung.size or self._probe(wish, view, rungs) is not None:
                return False
        if not wish.polls:
            step.seat = admission.go_on(view.seats, view.me, view.now, rung.seconds)
        elif seat.doing != POLLING:
            step.seat = admission.retain(seat, view.now)
        step.granted.append((wish, rung))
        return True

    def _revoke(self, step: Step, view: View) -> None:
        slice_ends = step.seat.granted_at + admission.POLL_SLICE
        if view.now < slice_ends:
            step.look_at = slice_ends
        else:
            step.revoked += self.receiving

    def _is_idle(self, seat: Seat, now: float) -> bool:
        """Whether it has had nothing to do for so long that its memory goes back."""
        return now - max(seat.last_used, seat.resident_since) >= self._park_after

    def _hoards(self, seat: Seat, view: View) -> bool:
        """Whether it keeps room for more than a look takes, has not used it for a while, and is not alone."""
        is_waiting = seat.doing == POLLING and view.now - seat.last_used > _HOARD_SECONDS
        smallest = self.known.smallest(1, view.wall)
        return is_waiting and len(view.seats) > 1 and bool(smallest) and seat.granted > smallest[0].nbytes

    # --- with a runner and no grant ---

    def _step_free(self, step: Step, view: View) -> None:
        seat = step.seat
        view = view.with_mine(seat)
        if self._failed_wakes > 1:
            _log.warning("model %s could not be woken twice: its runner is ended", seat.model)
            self._failed_wakes = 0
            step.seat, step.order = admission.begin_to_park(seat, view.now), "retire"
            return
        wish = self._next_wish(seat, view)
        if wish is None:
            if seat.asked_at is not None:
                step.seat = admission.withdraw(seat)
            self.waits = None
            self._consider_parking(step, view.with_mine(step.seat))
            return
        if view.now < self._not_before:
            step.look_at = self._not_before
            return
        ladder = self._ladder(wish, view)
        probe = None if wish.polls else self._probe(wish, view, ladder)
        if probe is not None:
            ladder = (Rung(probe, seat.need, seat.seconds),)
        seat = msgspec.structs.replace(seat, need=ladder[0].nbytes, seconds=ladder[0].seconds)
        if seat.asked_at is None:
            mine = view.with_mine(seat)
            seat = admission.ask(mine.seats, view.me, view.now, polls=wish.polls, probes=probe is not None)
        else:
            seat = msgspec.structs.replace(seat, polls=wish.polls, probes=probe is not None)
        rung = self._ask(step, view.with_mine(seat), ladder)
        if rung is None:
            self._consider_parking(step, view.with_mine(step.seat))
        elif seat.load_seconds > 0.0:
            step.order, self._waking = "wake", (wish, rung)
        else:
            step.granted.append((wish, rung))

    def _deliver_woken(self, step: Step) -> bool:
        """Whether somebody asked while the model was parked, and still wants what it gets now."""
        woken, self._waking = self._waking, None
        if woken is None or woken[0] not in list(self.wishes):
            return False
        step.granted.append(woken)
        return True

    def _next_wish(self, seat: Seat, view: View) -> Wish[Grant] | None:
        """Nobody is parked, nor made to wait, for a look at a queue that may be empty."""
        first = self.known.smallest(1, view.wall)
        may_poll = (
            seat.load_seconds == 0.0
            and not self._is_idle(seat, view.now)
            and bool(first)
            and first[0].nbytes <= view.room
            and admission.who_lacks_room(view.device, view.seats, view.me, view.now) is None
        )
        return self.wishes.first(may_poll=may_poll)

    def _ladder(self, wish: Wish[Grant], view: View) -> Sequence[Rung]:
        if wish.polls and len(view.seats) > 1:
            return self.known.smallest(wish.want, view.wall)
        return self.known.ladder(wish.want, view.wall)

    def _probe(self, wish: Wish[Grant], view: View, ladder: Sequence[Rung]) -> int | None:
        """The batch to measure now, if any. Fewer inputs may come than were asked for: then it is tried again later."""
        if ladder and view.now < self._no_probe_before:
            return None
        return self.known.probe_size(wish.want, view.room)

    def _ask(self, step: Step, view: View, ladder: Sequence[Rung]) -> Rung | None:
        """Whether its turn has come: what it may run then."""
        me, now = view.me, view.now
        seat = view.seats[me]
        decision = self._decide(view.device, view.seats, me, now, ladder)
        if isinstance(decision, admission.Grant):
            self.waits = None
            if seat.probes:
                self._no_probe_before = now + _PROBE_PAUSE
            step.seat = admission.take(seat, decision, now)
            return Rung(decision.size, decision.nbytes, decision.seconds)
        is_news = not isinstance(self.waits, type(decision))
        self.waits = decision
        if isinstance(decision, NeverFits):
            if is_news:
                _log.error("%s", decision.reason)
            step.seat = admission.withdraw(seat)
            self._not_before = step.look_at = now + _TRY_AGAIN_AFTER
            return None
        step.seat = admission.looked(seat, now)
        step.look_at = decision.until
        if is_news:
            step.rings += holding_in_vain(view)
        return None

    def _consider_parking(self, step: Step, view: View) -> None:
        seat = step.seat
        if seat.doing != IDLE or not seat.evictable:
            return
        why = admission.ought_to_park(view.device, view.seats, view.me, view.now)
        if why is None:
            if seat.asked_at is not None or not self._is_idle(seat, view.now):
                return
            why = f"{seat.model} is parked: it had nothing to do for {self._park_after:g} s"
        _log.info("%s", why)
        step.seat = admission.begin_to_park(seat, view.now)
        step.order = "park" if self.known.parks else "retire"
