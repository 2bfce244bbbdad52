"""Admission to a device that several workers share, by its ledger.

One task looks: whenever something happened here, when somebody rings, and from time to time. Each look is one turn at
the ledger, in which tenancy.py says what comes next. What the turn has granted is told once it is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from dumbwaiter.devices.admission import Admission, Grant, HasWork, Mover, Place
from dumbwaiter.devices.contract import Device
from dumbwaiter.devices.footprint_store import FootprintStore
from dumbwaiter.devices.ledger import Ledger, LedgerBusyError, LedgerFullError, Turn, now
from dumbwaiter.devices.ledger.bells import POLL_EVERY
from dumbwaiter.devices.sharing.census import Census
from dumbwaiter.devices.sharing.standing import Knowledge
from dumbwaiter.devices.sharing.steps import Order, Step, View
from dumbwaiter.devices.sharing.tenancy import Tenancy
from dumbwaiter.devices.sharing.terms import Terms
from dumbwaiter.devices.sharing.turns import Decide
from dumbwaiter.devices.sharing.wishes import Wish
from dumbwaiter.errors import DumbwaiterError
from dumbwaiter.policies import admission, footprints
from dumbwaiter.policies.admission import NeverFits, Rung, Seat
from dumbwaiter.policies.admission.wording import size_text
from dumbwaiter.policies.footprints import Footprint, Observation

_LOOK_EVERY = 0.5
_SAVE_EVERY = 30.0
_BUSY_PAUSE = 0.5
#: After so many seconds a wait is worth a line in the log.
_LONG_WAIT = 5.0
#: Times that differ by less than this part of them are the same.
_NOISE = 0.2
#: How long the memory of a runner that was ended is waited for before leaving.
_TIDY_SECONDS = 1.0
_FIRST_PEEK, _LONGEST_PEEK, _PEEK_GROWTH = 0.1, 0.5, 1.5
_log = logging.getLogger(__name__)


class LedgerAdmission(Admission):
    """One worker's admission to *device*, whose *ledger* is open. *key* is its model's in the *store* of footprints."""

    is_shared = True

    def __init__(
        self,
        terms: Terms,
        device: Device,
        ledger: Ledger[Seat],
        store: FootprintStore,
        key: str,
        *,
        decide: Decide = admission.decide,
    ) -> None:
        self._device = device
        self._ledger = ledger
        self._store = store
        self._key = key
        self._census = Census(device)
        known = Knowledge(model=terms.model, weight=terms.weight, declared=terms.footprint, footprint=store.load(key))
        self._tenancy = Tenancy(known, park_after=terms.park_after, decide=decide)
        self._seat: Seat | None = None
        self._changed = asyncio.Event()
        self._peeks = asyncio.Event()
        self._look_at = 0.0
        self._is_cold = False
        self._saved_at = 0.0
        self._trouble = ""
        self._has_told_wait = False
        self._mover: Mover
        self._has_work: HasWork

    def attach(self, mover: Mover, has_work: HasWork) -> None:
        self._mover = mover
        self._has_work = has_work

    async def run(self) -> None:
        peeking = asyncio.create_task(self._peek_for_work())
        peeking.add_done_callback(lambda _: self._changed.set())
        try:
            while True:
                self._changed.clear()
                if peeking.done():
                    peeking.result()  # a fault of ours: a parked model would never be woken again
                order = await self._look()
                if order is None or not await self._carry_out(order):
                    await self._rest()
        finally:
            peeking.cancel()

    # --- what is asked of it ---

    async def make_place(self) -> Place:
        wish = Wish[Place](0, polls=self._is_cold)
        self._tenancy.place = wish
        self._changed.set()
        try:
            return await wish.granted
        except asyncio.CancelledError:
            if wish.granted.done() and not wish.granted.cancelled():
                self.move_out()
            raise
        finally:
            self._tenancy.place = None
            self._changed.set()

    def settle_in(self, footprint: Footprint | None, max_batch: int) -> None:
        self._is_cold = False
        known = self._tenancy.known
        measured = _merged(known.footprint, footprint) if footprint is not None else known.footprint
        if known.declared is not None and measured is not None and measured.full > known.declared:
            _log.warning(
                "%s is declared to take %s in all, and its process and weights alone take %s; correct its footprint, "
                "or leave it out to have it measured",
                *(known.model, size_text(known.declared), size_text(measured.full)),
            )
        known = replace(known, footprint=measured, target=max_batch, takes_one=max_batch == 1, is_fixed=False)
        self._tenancy.settle_in(known)
        self._save(at_once=True)
        self._changed.set()

    def move_out(self) -> None:
        self._tenancy.move_out()
        self._ledger.vacate()
        self._seat = None
        self._changed.set()

    def observe(self, observations: Sequence[Observation], target: int, seconds_each: float) -> None:
        known, wall = self._tenancy.known, time.time()
        footprint = known.footprint or Footprint()
        for observation in observations:
            self._tenancy.held.used(observation.nbytes)
            if footprints.tells(footprint, observation, wall):
                footprint = footprints.observed(footprint, observation, wall, room=known.most)
        is_as_known = abs(seconds_each - known.seconds_each) <= _NOISE * known.seconds_each
        if footprint is known.footprint and target == known.target and is_as_known:
            return
        self._tenancy.learn(replace(known, footprint=footprint, target=target, seconds_each=seconds_each))
        self._save(at_once=False)

    @property
    def may_grow(self) -> bool:
        return self._tenancy.known.may_grow(time.time())

    @property
    def is_hopeless(self) -> bool:
        waits, alone = self._tenancy.turns.waits, admission.Device(self._device.name, self._device.capacity)
        return isinstance(waits, NeverFits) and waits.needed > alone.limit

    @property
    def reason(self) -> str:
        return self._trouble or (self._tenancy.turns.waits.reason if self._tenancy.turns.waits is not None else "")

    async def acquire(self, want: int, *, polls: bool = False) -> Grant:
        rung = self._tenancy.go_on(want, polls=polls)
        if rung is not None:
            return self._handed_out(rung, want, polls=polls)
        wish = Wish[Grant](want, polls=polls)
        self._tenancy.wishes.add(wish)
        self._changed.set()
        try:
            return await wish.granted
        except asyncio.CancelledError:
            if wish.granted.done() and not wish.granted.cancelled():
                wish.granted.result().shrink_to(0)
            self._tenancy.wishes.remove(wish)
            self._changed.set()
            raise

    def release(self, grant: Grant, count: int) -> None:  # noqa: ARG002 - the grant itself has counted
        if self._tenancy.held.released(grant) and self._tenancy.must_look:
            self._changed.set()

    def received(self, grant: Grant, count: int) -> None:
        if self._tenancy.held.received(grant, count) and self._tenancy.must_look:
            self._changed.set()

    # --- looking ---

    async def _look(self) -> Order | None:
        """One turn: what comes next is written, and told. What is left to do with the runner's memory."""
        self._look_at = math.inf
        if self._ledger.seat is None and not self._wants_seat():
            return None
        try:
            async with self._ledger.turn() as turn:
                if self._ledger.seat is None and not self._wants_seat():  # by now
                    return None
                device, seats = self._census.take(turn, now(), empty=self._place if self._tenancy.is_empty else None)
                self._sit_down(turn)
                step = self._next_step(device, seats)
                is_unread = any(one.place == self._place for one in turn.unknown)
                if step.seat != self._seat or is_unread:
                    turn.write(step.seat)
                self._seat, self._look_at, self._trouble = step.seat, step.look_at, ""
        except LedgerBusyError as error:
            await self._note_trouble(error)
            return None
        except LedgerFullError as error:
            # One without a seat has promised nothing yet, and waits. For one that has, what was decided is lost.
            if self._ledger.seat is not None:
                raise
            await self._note_trouble(error)
            return None
        self._tell(step)
        return step.order

    def _wants_seat(self) -> bool:
        return self._tenancy.place is not None

    @property
    def _place(self) -> int:
        seat = self._ledger.seat
        return -1 if seat is None else seat.place

    def _sit_down(self, turn: Turn[Seat]) -> None:
        if self._ledger.seat is None:
            self._seat = self._tenancy.newcomer(time.time())
            seat = turn.take_seat(self._seat)
            seat.listen(self._changed.set)

    def _next_step(self, device: admission.Device, seats: dict[int, Seat]) -> Step:
        if self._seat is None:
            raise RuntimeError("a worker that has no seat has no next step")
        mine = msgspec.structs.replace(self._seat, outside=self._census.outside, doubtful=self._census.doubtful)
        seats[self._place] = mine
        view = View(device, seats, self._place, now(), time.time())
        return self._tenancy.step(view, is_blurred=self._census.is_blurred)

    def _tell(self, step: Step) -> None:
        """What was written comes true."""
        if step.rings:
            self._ledger.ring(set(step.rings))
        for grant in step.revoked:
            grant.is_revoked.set()
        if step.is_placed:
            self._give_place()
        for wish, rung in step.granted:
            self._tenancy.wishes.remove(wish)
            grant = self._handed_out(rung, wish.want, polls=wish.polls)
            if wish.granted.done():  # cancelled meanwhile
                grant.shrink_to(0)
            else:
                wish.granted.set_result(grant)
        self._note_wait(step.seat)
        if self._tenancy.wants_work:
            self._peeks.set()

    def _handed_out(self, rung: Rung, want: int, *, polls: bool) -> Grant:
        known = self._tenancy.known
        batch = None if known.takes_one else min(rung.size, known.target)
        grant = Grant(min(rung.size, want), self, batch=batch, may_wait=polls)
        self._tenancy.held.hand_out(grant)
        return grant

    def _note_wait(self, seat: Seat) -> None:
        """Whoever looks why nothing happens finds it in the log, once for each time."""
        if seat.asked_at is None or self.reason == "":
            self._has_told_wait = False
        elif not self._has_told_wait and now() - seat.asked_at >= _LONG_WAIT:
            self._has_told_wait = True
            _log.info("deferred for %.0f s so far: %s", now() - seat.asked_at, self.reason)

    def _give_place(self) -> None:
        wish, seat = self._tenancy.place, self._ledger.seat
        if wish is None or seat is None or wish.granted.done():
            self.move_out()
            return
        wish.granted.set_result(
            Place(
                device=self._device.address,
                environment=self._device.environment(),
                seat_fd=seat.fileno(),
                probes=self._tenancy.known.must_be_measured,
            )
        )

    async def _rest(self) -> None:
        """Until something happens, or it is time to look again."""
        seat = self._ledger.seat
        is_waiting = self._seat is not None and self._seat.asked_at is not None
        is_watchful = is_waiting or self._tenancy.is_watchful or (seat is not None and seat.is_deaf)
        longest = POLL_EVERY if is_watchful else _LOOK_EVERY
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(longest, max(0.0, self._look_at - now()))):
                await self._changed.wait()

    async def _note_trouble(self, error: DumbwaiterError) -> None:
        if str(error) != self._trouble:
            _log.warning("%s", error)
        self._trouble = str(error)
        await asyncio.sleep(_BUSY_PAUSE)

    # --- doing ---

    async def _carry_out(self, order: Order) -> bool:
        """Have the runner's memory moved. False when nothing was, for the runner is gone: soon move_out() is called."""
        if order == "retire":
            self._is_cold = True
            await self._mover.retire()
            return False
        moved = await self._mover.move(order)
        if moved is not None:
            self._tenancy.moved(order, moved)
        return moved is not None

    async def _peek_for_work(self) -> None:
        """While somebody would hold the device only to look for work, look for it from without."""
        while True:
            await self._peeks.wait()
            self._peeks.clear()
            pause = _FIRST_PEEK
            while self._tenancy.wants_work:
                if await self._is_there_work():
                    self._tenancy.found_work()
                    self._changed.set()
                    break
                await asyncio.sleep(pause)
                pause = min(pause * _PEEK_GROWTH, _LONGEST_PEEK)

    async def _is_there_work(self) -> bool:
        try:
            return await self._has_work()
        except DumbwaiterError as error:
            await self._note_trouble(error)
            return False

    def _save(self, *, at_once: bool) -> None:
        footprint = self._tenancy.known.footprint
        if footprint is not None and (at_once or time.monotonic() >= self._saved_at + _SAVE_EVERY):
            self._saved_at = time.monotonic()
            self._store.save(self._key, footprint)

    async def close(self) -> None:
        """Leave the device: with the runner's memory back, so that nobody has to wait for it, if that comes soon."""
        self._save(at_once=True)
        self.move_out()
        with contextlib.ExitStack() as stack:
            stack.callback(self._device.close)
            stack.callback(self._ledger.close)
            await self._tidy()

    async def _tidy(self) -> None:
        give_up_at = time.monotonic() + _TIDY_SECONDS
        with contextlib.suppress(DumbwaiterError):
            while time.monotonic() < give_up_at:
                async with self._ledger.turn() as turn:
                    device, _ = self._census.take(turn, now(), is_seated=False)
                if not device.quarantined:
                    break
                await asyncio.sleep(POLL_EVERY)


def _merged(known: Footprint | None, measured: Footprint) -> Footprint:
    """What a runner that did not probe has *measured* is less than what was *known*."""
    if known is None or measured.batches:
        return measured
    return msgspec.structs.replace(
        known,
        weights=measured.weights,
        load_seconds=measured.load_seconds,
        parked=None if measured.parked is None else known.parked or measured.parked,
        context=measured.context or known.context,
    )
