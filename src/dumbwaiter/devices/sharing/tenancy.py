"""One worker on a shared device, and its next step there. It decides; ledger_admission.py acts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from dumbwaiter.devices.admission import Grant, Moved, Place, What
from dumbwaiter.devices.sharing.holdings import Holdings
from dumbwaiter.devices.sharing.standing import HOARD_SECONDS, LEAST, Knowledge, after_move, introduced
from dumbwaiter.devices.sharing.steps import Stage, Step, View, waiting
from dumbwaiter.devices.sharing.turns import Decide, Turns
from dumbwaiter.devices.sharing.wishes import Wish, Wishes
from dumbwaiter.policies import admission
from dumbwaiter.policies.admission import IDLE, POLLING, PROBING, RUNNING, Rung, Seat

_log = logging.getLogger(__name__)


class Tenancy:
    """The state of one worker. The methods but step() note what happened since; step() takes it all into account."""

    def __init__(self, known: Knowledge, *, park_after: float, decide: Decide = admission.decide) -> None:
        self.known = known
        self.wishes = Wishes()
        self.place: Wish[Place] | None = None
        self.stage = Stage.OUT
        self.held = Holdings()
        self.turns = Turns(decide)
        self._park_after = park_after
        self._moved: tuple[What, Moved] | None = None
        self._is_settling = False
        self._knows_more = True
        self._failed_wakes = 0
        self._waking: tuple[Wish[Grant], Rung] | None = None
        self._tag = self._clock = 0.0
        """Those of its last seat: its turn does not come sooner because its runner was ended."""
        self._view: View | None = None
        self._goes_on = False
        self._is_owed = False
        """Whether nothing was run yet with the grant that its load came with."""
        self._unsaid: list[float] = []  # seconds of each batch that go_on() has granted since the last look

    # --- what happened ---

    def settle_in(self, known: Knowledge) -> None:
        """The runner is ready."""
        self.known, self.stage = known, Stage.IN
        self._is_settling = True
        self.held.emptied()

    def move_out(self) -> None:
        """The runner is gone, and whatever it had been granted."""
        self.stage = Stage.OUT
        self.held.void()
        self._moved = self._waking = self._view = None
        self._goes_on = self._is_owed = False
        self._unsaid.clear()

    def learn(self, known: Knowledge) -> None:
        """More is known of the model."""
        self.known, self._knows_more = known, True

    def moved(self, what: What, moved: Moved) -> None:
        """An order was carried out, by the runner that is there or by one that has died since."""
        if self.stage is Stage.IN:
            self._moved = (what, moved)

    def go_on(self, want: int, *, polls: bool) -> Rung | None:
        """What can be granted at once out of what is held, if nobody lacked room at the last look.

        The seat need not be written for that: what it says is held does not change. Whoever lacks room rings, and one
        who holds a grant looks often in any case.
        """
        view = self._view
        if view is None or not self._goes_on:
            return None
        rung = self._fitting(want, polls, view.seats[view.me], view)
        if rung is not None and not polls:
            self._unsaid.append(rung.seconds)
        return rung

    @property
    def must_look(self) -> bool:
        """Whether the end of a grant matters to anybody: else it is seen at the next look in any case."""
        return not self._goes_on or bool(self.wishes)

    @property
    def is_watchful(self) -> bool:
        """Whether it holds what others might lack, and must see that soon even if their ring is lost."""
        return self._goes_on and self._view is not None and len(self._view.seats) > 1

    @property
    def is_empty(self) -> bool:
        """Whether its runner uses nothing of what it was granted."""
        # What was moved since the last look has emptied it too.
        return self.stage is Stage.IN and (self.held.is_empty or self._moved is not None) and not self.held.grants

    @property
    def wants_work(self) -> bool:
        """Whether it has to be known if there is work: somebody only polls, and must not hold the device for that."""
        if self.stage is Stage.OUT:
            return self.place is not None and self.place.polls
        return not self.held.grants and any(wish.polls for wish in self.wishes)

    def found_work(self) -> None:
        """There is work: whoever only polls may ask for the device in earnest."""
        if self.place is not None:
            self.place.polls = False
        for wish in self.wishes:
            wish.polls = False

    def newcomer(self, wall: float) -> Seat:
        """What a process says that has nothing on the device yet."""
        self._knows_more = False
        seat = Seat(model=self.known.model, weight=self.known.weight, finish_tag=self._tag, clock=self._clock)
        return introduced(seat, self.known, wall)

    # --- what is next ---

    def step(self, view: View, *, is_blurred: bool) -> Step:
        """The next step. *is_blurred*: somebody's record cannot be read, so nothing can be given now."""
        seat = view.seats[view.me]
        self._goes_on = False
        has_parked = self._moved is not None and self._moved[0] == "park"
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
        if has_parked:
            step.rings += waiting(view)
        self._goes_on = self._goes_on and step.order is None and step.seat.granted > 0
        self._tag, self._clock = step.seat.finish_tag, step.seat.clock
        self._view = view.with_mine(step.seat)
        return step

    def _noted(self, seat: Seat, view: View) -> Seat:
        """*seat* with what has happened since the last step."""
        if self._is_settling:
            self._is_settling = False
            footprint = self.known.footprint
            full = footprint.full if footprint is not None else seat.full
            seat = admission.loaded(seat, view.now)
            self._is_owed = seat.doing == RUNNING
            seat = (admission.retain if self._is_owed else admission.give_back)(seat, view.now)
            seat = msgspec.structs.replace(seat, resident=full, full=full, load_seconds=0.0)
            self._knows_more = True
        if self._moved is not None:
            what, moved = self._moved
            self._moved = None
            seat = self._after(seat, what, moved, view.now)
        seat = self._running(seat, view)
        # Whoever took more than it was granted says so, and what the next batch takes is seen from the start.
        if 0 < seat.granted < self.held.most_used:
            self.held.exceeds = True
            seat = msgspec.structs.replace(seat, granted=self.held.most_used)
        if self._knows_more and not seat.granted:
            self._knows_more = False
            seat = introduced(seat, self.known, view.wall)
        return seat

    def _running(self, seat: Seat, view: View) -> Seat:
        """*seat* with the batches that have begun since the last step."""
        mine = view.with_mine(seat)
        if self._unsaid and seat.granted:
            last, total = self._unsaid[-1], sum(self._unsaid)
            seat = admission.go_on(mine.seats, view.me, view.now, total, left=last)
        elif self.held.is_running and seat.doing == POLLING:
            found = admission.found_work(seat, view.now)
            seat = found if seat.polls else admission.go_on(mine.seats, view.me, view.now, seat.seconds)
        self._unsaid.clear()
        return seat

    def _after(self, seat: Seat, what: What, moved: Moved, now: float) -> Seat:
        self.held.emptied()
        if not moved.is_done and what == "park":
            _log.warning("model %s cannot be parked: its runner will be ended instead", seat.model)
            self.learn(replace(self.known, is_fixed=True))
        elif not moved.is_done and what == "wake":
            self._failed_wakes += 1
            self.turns.put_off(now)
            self._waking = None
        elif what == "wake":
            self._failed_wakes = 0
        return after_move(seat, what, moved, self.known, now)

    # --- without a runner ---

    def _step_out(self, step: Step, view: View) -> None:
        seat = step.seat
        if self.place is not None and any(not wish.polls for wish in self.wishes):
            self.place.polls = False  # what is in hand already is in no queue any more
        if self.place is None or self.place.polls:
            self.turns.waits = None
            step.seat = seat if seat.asked_at is None else admission.withdraw(seat)
            return
        if self.turns.is_put_off(step, view.now):
            return
        if self.known.must_be_measured:
            # Nobody knows what it takes, unless that was declared: what is idle leaves, this once.
            seat = msgspec.structs.replace(seat, need=self.known.declared or max(LEAST, view.most))
        if seat.asked_at is None:
            mine = view.with_mine(seat)
            seat = admission.ask(mine.seats, view.me, view.now, probes=self.known.must_be_measured)
        granted = self.turns.ask(step, view.with_mine(seat), ())
        if granted is not None:
            self.stage, step.is_placed = Stage.MOVING_IN, True

    # --- with a grant ---

    def _step_held(self, step: Step, view: View) -> None:
        seat = step.seat
        view = view.with_mine(seat)
        must_end = self._must_end(seat, view)
        self._goes_on = not must_end
        if self.held.grants:
            self._step_busy(step, view, must_end=must_end)
            return
        wish = self.wishes.first(may_poll=True)
        must_end |= self._is_owed
        if self._serve_owed(step, view, wish):
            return
        if not must_end and self._prolong(step, view, wish):
            return
        if not must_end and wish is None:
            if seat.doing != POLLING:
                step.seat = admission.retain(seat, view.now)
            return
        if not self.held.is_empty:
            step.order = "empty"
            return
        step.seat = admission.give_back(seat, view.now, was_used=seat.doing == RUNNING)
        self._step_free(step, view.with_mine(step.seat))
        if step.seat.granted < seat.granted:
            step.rings += waiting(view)

    def _step_busy(self, step: Step, view: View, *, must_end: bool) -> None:
        self._is_owed = False
        if step.seat.doing == RUNNING and self.held.only_waits:
            step.seat = admission.retain(step.seat, view.now)
        elif not must_end:
            self._prolong(step, view, self.wishes.first(may_poll=not self.held.receiving))
        elif not self.held.is_running:
            self._revoke(step, view)

    def _serve_owed(self, step: Step, view: View, wish: Wish[Grant] | None) -> bool:
        """Whether *wish* gets what its load came with, whoever waits, or it is still time for one.

        Two that oust each other and load again would never run anything otherwise.
        """
        if not self._is_owed or self._prolong(step, view, wish):
            return self._is_owed
        step.look_at = step.seat.granted_at + admission.POLL_SLICE
        self._is_owed = view.now < step.look_at
        return self._is_owed

    def _must_end(self, seat: Seat, view: View) -> bool:
        """Whether what is held has to be given back as soon as nothing runs."""
        return (
            seat.doing == PROBING
            or self.held.exceeds
            or self._is_idle(seat, view.now)
            or self._hoards(seat, view)
            or admission.who_lacks_room(view.device, view.seats, view.me, view.now) is not None
        )

    def _prolong(self, step: Step, view: View, wish: Wish[Grant] | None) -> bool:
        """Whether *wish* could be granted out of what is held, for nobody needs that."""
        rung = None if wish is None else self._fitting(wish.want, wish.polls, step.seat, view)
        if wish is None or rung is None:
            return False
        if not wish.polls:
            step.seat = admission.go_on(view.seats, view.me, view.now, rung.seconds)
        elif step.seat.doing != POLLING or self._is_owed:
            step.seat = admission.retain(step.seat, view.now)
        step.granted.append((wish, rung))
        return True

    def _fitting(self, want: int, polls: bool, seat: Seat, view: View) -> Rung | None:
        """The batch that *seat* can run with what it holds; None if it should rather ask for more."""
        rungs = self.known.all(want, view.wall) if polls else self.known.ladder(want, view.wall)
        rung = next((rung for rung in reversed(rungs) if rung.nbytes <= seat.granted), None)
        if rung is None or polls or self.held.grants or self._is_owed:
            return rung
        largest = max(one.size for one in rungs if one.nbytes <= max(seat.granted, view.room))
        return None if largest > rung.size or self._probe(want, view, rungs) is not None else rung

    def _revoke(self, step: Step, view: View) -> None:
        seat = step.seat
        # What was found meanwhile to have work may take as long as a batch to get it.
        slice_ends = seat.granted_at + admission.POLL_SLICE if seat.doing == POLLING else seat.deadline
        if view.now < slice_ends:
            step.look_at = slice_ends
        else:
            step.revoked += self.held.receiving

    def _is_idle(self, seat: Seat, now: float) -> bool:
        """Whether it has had nothing to do for so long that its memory goes back."""
        return now - max(seat.last_used, seat.resident_since) >= self._park_after

    def _hoards(self, seat: Seat, view: View) -> bool:
        """Whether it keeps room for more than a look takes, has not used it for a while, and is not alone."""
        is_waiting = seat.doing == POLLING and view.now - seat.last_used > HOARD_SECONDS
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
            self.turns.waits = None
            self._consider_parking(step, view.with_mine(step.seat))
            return
        if self.turns.is_put_off(step, view.now):
            return
        ladder = self._ladder(wish, view)
        probe = None if wish.polls else self._probe(wish.want, view, ladder)
        if probe is not None:
            ladder = (Rung(probe, seat.need, seat.seconds),)
        seat = msgspec.structs.replace(seat, need=ladder[0].nbytes, seconds=ladder[0].seconds)
        if seat.asked_at is None:
            mine = view.with_mine(seat)
            seat = admission.ask(mine.seats, view.me, view.now, polls=wish.polls, probes=probe is not None)
        else:
            seat = msgspec.structs.replace(seat, polls=wish.polls, probes=probe is not None)
        rung = self.turns.ask(step, view.with_mine(seat), ladder)
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
            and self._would_hinder_nobody(msgspec.structs.replace(seat, granted=first[0].nbytes), view)
        )
        return self.wishes.first(may_poll=may_poll)

    def _would_hinder_nobody(self, seat: Seat, view: View) -> bool:
        """Whether nobody would lack room if *seat* was one's own."""
        return admission.who_lacks_room(view.device, view.with_mine(seat).seats, view.me, view.now) is None

    def _ladder(self, wish: Wish[Grant], view: View) -> Sequence[Rung]:
        if wish.polls and len(view.seats) > 1:
            return self.known.smallest(wish.want, view.wall)
        return self.known.ladder(wish.want, view.wall)

    def _probe(self, want: int, view: View, ladder: Sequence[Rung]) -> int | None:
        """The batch to measure now, if any. Fewer inputs may come than were asked for: then it is tried again later."""
        if ladder and not self.turns.may_probe(view.now):
            return None
        return self.known.probe_size(want, view.room)

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
