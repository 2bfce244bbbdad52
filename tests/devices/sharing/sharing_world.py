"""Several workers on one device as discrete events: the real tenancy, census and policy over a table in memory.

What runners really hold is kept apart from what seats say. A worker looks soon after anything happened to it, when it
is rung for, and from time to time; while an order of its own is carried out it does not look.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable

import msgspec
from sharing_parts import RIGHT, WALL, BrokenRuleError, Model, Outcome, ScriptedDevice, Switches, TableTurn
from sharing_workers import Queue, Worker

from dumbwaiter.devices.admission import Grant
from dumbwaiter.devices.sharing.steps import Step, View
from dumbwaiter.devices.sharing.wishes import Wish
from dumbwaiter.policies.admission import LONGEST_QUARANTINE, Device, NeverFits, Rung, Seat
from dumbwaiter.policies.footprints import Footprint

#: Who waits looks so often, and who does not; rings, and what happens to them, make them look sooner.
_POLL_EVERY, _LOOK_EVERY = 0.4, 1.0
#: A ring gets lost now and then.
_LOST_RINGS = 0.02
_PEEK_EVERY = 0.2
#: More looks of one worker in a second to which nothing happens are a busy loop.
_MOST_LOOKS = 40


class World:
    def __init__(
        self,
        capacity: int,
        *,
        seed: int,
        outside: int = 0,
        switches: Switches = RIGHT,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.dice = random.Random(seed)
        self.now = 1000.0
        self.scripted = ScriptedDevice(capacity)
        self.capacity = capacity
        self.outside = outside
        self.leaked = 0
        self.living: dict[int, Seat] = {}
        self.orphaned: dict[int, Seat] = {}
        self.owners: dict[int, Worker] = {}
        self.dead: dict[int, int] = {}
        self.workers: list[Worker] = []
        self.queues: list[Queue] = []
        self.footprints: dict[str, Footprint] = {}
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.happenings: list[float] = []
        """When anything happened to anybody: grants, batches, orders, deaths."""
        self.death_rate = self.failure_rate = 0.0
        self.switches = switches
        self.trace = trace
        self.outcome = Outcome()

    # --- time ---

    def say(self, text: str) -> None:
        if self.trace is not None:
            self.trace(f"{self.now - 1000.0:9.4f}  {text}")

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now + seconds, self.count, act))

    def lasts(self, seconds: float) -> float:
        return seconds * self.dice.uniform(0.6, 1.4)

    def look_soon(self, worker: Worker) -> None:
        self.look_in(worker, self.dice.uniform(0.0001, 0.001))

    def look_in(self, worker: Worker, seconds: float) -> None:
        when = self.now + seconds
        if when < worker.due:
            worker.due = when
            self.after(seconds, lambda: self.look(worker) if worker.due == when else None)

    def run(self, until: float) -> None:
        """Let happen what happens until then."""
        while self.events and self.events[0][0] <= until:
            self.now, _, act = heapq.heappop(self.events)
            act()
            self.check_progress()
        self.now = until

    # --- memory ---

    @property
    def used(self) -> int:
        held = sum(worker.runner.held for worker in self.workers if worker.runner is not None)
        return self.outside + self.leaked + sum(self.dead.values()) + held

    @property
    def free(self) -> int:
        return self.capacity - self.used

    @property
    def device_left(self) -> int:
        """What can be given out at all, with everybody parked."""
        lasting = sum(worker.model.context + (worker.model.parked or 0) for worker in self.workers)
        return Device("gpu", self.capacity, self.outside + self.leaked).limit - lasting

    def check_memory(self, worker: Worker) -> None:
        if self.free < 0:
            self.tell_of_holders()
            raise BrokenRuleError(f"over-committed by {-self.free / 2**20:.0f} MiB, when {worker.model.name} took more")

    def tell_of_holders(self) -> None:
        """Say who really holds what, and what its seat says."""
        for worker in self.workers:
            runner, seat = worker.runner, worker.seat
            if runner is not None and seat is not None:
                held = f"{runner.base} + {runner.cache} cached, {runner.running} running {len(worker.batch)}"
                said = f"{seat.resident} + {seat.granted} {seat.doing}"
                self.say(f"{worker.model.name} ({worker.place}) holds {held}; its seat says {said}")
        self.say(f"the dead hold {list(self.dead.values())}, {self.outside} are used outside, {self.leaked} leaked")

    def bury(self, place: int, held: int, freed_after: float) -> None:
        """The seat's owner is dead, and its memory comes back so much later; in infinitely many seconds never."""
        seat = self.living.pop(place)
        del self.owners[place]
        self.orphaned[place] = seat
        if freed_after == math.inf:
            self.outcome.leaks += 1
            self.leaked += held
        elif held:
            token = self.count
            self.dead[token] = held
            self.after(freed_after, lambda: self.dead.pop(token))

    # --- workers ---

    def add_queue(self, model: Model) -> Queue:
        queue = Queue(model)
        self.queues.append(queue)
        if model.is_known:
            self.footprints[model.name] = model.footprint(self.now)
        return queue

    def add_worker(self, queue: Queue) -> Worker:
        worker = Worker(self, queue, self.footprints.get(queue.model.name))
        self.workers.append(worker)
        worker.seek_place()
        self.disturbed()
        return worker

    def arrive(self, queue: Queue, count: int) -> None:
        if not queue.pending:
            queue.moved_on_at = self.now
        queue.ready += count
        queue.pending += count
        self.say(f"{count} messages come for {queue.model.name}")
        self.told_of_work(queue)

    def told_of_work(self, queue: Queue) -> None:
        for worker in self.workers:
            if worker.queue is queue and worker.receiving is not None and worker.receiving[1]:
                self.after(0.001, lambda grant=worker.receiving[0], worker=worker: worker.receive(grant))

    def fetch(self, worker: Worker) -> None:
        """A message whose input had to be fetched asks for a grant of its own."""
        if worker.is_alive and worker.queue.ready and worker.runner is not None and worker.runner.is_ready:
            worker.queue.ready -= 1
            worker.wish(1, polls=False, is_fetched=True)

    def kill(self, worker: Worker, *, whole: bool) -> None:
        """Kill the worker's runner, or the *whole* of it: then another one starts."""
        if not worker.is_alive or (worker.runner is None and not whole):
            return
        self.say(f"{worker.model.name} ({worker.place}) dies{', with its consumer' if whole else ''}")
        self.outcome.deaths += 1
        kind = self.dice.random()
        freed_after = self.dice.random() if kind < 0.8 else self.dice.uniform(1.0, 9.0) if kind < 0.97 else math.inf
        if whole:
            worker.is_alive = False
            if worker.receiving is not None:
                worker.receiving = None
            worker.hand_back(sum(worker.wishes.values()))
            worker.wishes = {}
            self.workers.remove(worker)
            self.after(self.dice.random() * 0.5, lambda: self.add_worker(worker.queue))
        worker.lose_runner(freed_after)

    def disturbed(self) -> None:
        """Somebody joined or died: what was promised to those who wait begins anew."""
        for queue in self.queues:
            queue.moved_on_at = self.now

    # --- a look, as ledger_admission.py does it ---

    def look(self, worker: Worker) -> None:
        worker.due = math.inf
        if not worker.is_alive or worker.order is not None:
            return
        if worker.place is None and worker.tenancy.place is None:
            return
        self.scripted.in_use = self.used
        turn = TableTurn(self.living, self.orphaned)
        device, seats = worker.census.take(turn, self.now, empty=worker.place if worker.tenancy.is_empty else None)
        if self.switches.forgets_the_dead:
            for place in turn.orphaned:
                self.orphaned.pop(place[0], None)
                seats.pop(place[0], None)
        self.count_look(worker)
        if worker.place is None:
            self.sit_down(worker)
        seat = msgspec.structs.replace(worker.seat, outside=worker.census.outside, doubtful=worker.census.doubtful)
        seats[worker.place] = seat
        if self.switches.gives_back_unemptied:
            worker.tenancy.held.is_empty = True
        view = View(device, seats, worker.place, self.now, self.now + WALL)
        step = worker.tenancy.step(view, is_blurred=worker.census.is_blurred)
        self.living[worker.place] = worker.seat = step.seat
        if self.trace is not None and step.seat != seat:
            self.say(f"{worker.model.name} ({worker.place}): {_difference(seat, step)}")
        self.tell(worker, step)
        if step.order is not None and worker.runner is not None:
            worker.carry_out(step.order)
        else:
            is_watchful = step.seat.asked_at is not None or worker.tenancy.is_watchful
            longest = _POLL_EVERY if is_watchful else _LOOK_EVERY
            rest = min(longest, max(0.0, step.look_at - self.now))
            self.look_in(worker, 0.001 if self.switches.hurries else rest)

    def sit_down(self, worker: Worker) -> None:
        place = next(place for place in range(99) if place not in self.living and place not in self.orphaned)
        worker.place = place
        worker.seat = self.living[place] = worker.tenancy.newcomer(self.now + WALL)
        self.owners[place] = worker

    def tell(self, worker: Worker, step: Step) -> None:
        for place in set(step.rings):
            if place in self.owners and self.dice.random() >= _LOST_RINGS:
                self.look_soon(self.owners[place])
        for grant in step.revoked:
            grant.is_revoked.set()
            self.outcome.revoked += 1
        worker.end_receive_if_revoked()
        if step.is_placed:
            if not worker.is_alive or worker.runner is not None:
                raise BrokenRuleError(f"{worker.model.name} is given a place and has a runner, or is dead")
            worker.start_runner()
        for wish, rung in step.granted:
            worker.tenancy.wishes.remove(wish)
            self.outcome.prolonged += bool(worker.tenancy.held.grants)
            self.hand_out(worker, wish, rung)
        if worker.tenancy.wants_work and not worker.peeks:
            worker.peeks = True
            self.after(self.dice.random() * _PEEK_EVERY, lambda: self.peek(worker))

    def hand_out(self, worker: Worker, wish: Wish[Grant], rung: Rung) -> None:
        takes_one = worker.tenancy.known.takes_one
        grant = Grant(min(rung.size, wish.want), worker, batch=None if takes_one else rung.size)
        worker.tenancy.held.hand_out(grant)
        if wish.granted.done():
            grant.shrink_to(0)
            return
        wish.granted.set_result(grant)
        runner = worker.runner
        if runner is None or not runner.is_ready or not runner.is_loaded or worker.order is not None:
            raise BrokenRuleError(f"{worker.model.name} is granted a batch, and its runner is parked, moved or dead")
        worker.on_grant(wish, grant)

    def peek(self, worker: Worker) -> None:
        worker.peeks = False
        if not worker.is_alive or not worker.tenancy.wants_work:
            return
        if worker.queue.ready:
            worker.tenancy.found_work()
            self.look_soon(worker)
        else:
            worker.peeks = True
            self.after(_PEEK_EVERY, lambda: self.peek(worker))

    # --- what must hold ---

    def count_look(self, worker: Worker) -> None:
        self.outcome.steps += 1
        looks = [when for when in worker.looks if when > self.now - 1.0]
        worker.looks = [*looks, self.now]
        self.happenings = [when for when in self.happenings if when > self.now - 1.0]
        # What happens to one may be of interest to all.
        if len(worker.looks) > _MOST_LOOKS + 10 * len(self.happenings):
            raise BrokenRuleError(f"{worker.model.name} ({worker.place}) looks again and again, and nothing happens")

    def bound(self) -> float:
        """Seconds within which each model that has something to do has got on: generous."""
        once = 0.0
        for worker in self.workers:
            model = worker.model
            once += 2.0 * model.longest + 2.0 * model.load_seconds + 7.0 * model.move_seconds + 0.5
            once += model.load_seconds * 5.0 if model.parked is None else 0.0
        late = LONGEST_QUARANTINE if self.orphaned else 0.0
        weights = [worker.model.weight for worker in self.workers]
        # Whoever weighs more may run so many times as long.
        unequal = max(weights, default=1.0) / min(weights, default=1.0)
        return 4.0 * once * max(1.0, unequal / 2.0) + 5.0 + late

    def check_progress(self) -> None:
        bound = self.bound() if any(queue.pending for queue in self.queues) else 0.0
        for queue in self.queues:
            waited = self.now - queue.moved_on_at
            if not queue.pending or waited <= 1.0:
                continue
            self.outcome.longest = max(self.outcome.longest, waited / bound)
            if waited > bound and not self.is_hopeless(queue):
                waits = [worker.tenancy.turns.waits for worker in self.workers if worker.queue is queue]
                reasons = [getattr(one, "reason", "nothing") for one in waits]
                raise BrokenRuleError(f"{queue.model.name} has got nothing for {waited:.1f} s: {reasons}")

    def is_hopeless(self, queue: Queue) -> bool:
        """Whether there is too little left for it on the device, or it was told so."""
        workers = [worker for worker in self.workers if worker.queue is queue]
        hopeless = bool(workers) and all(isinstance(worker.tenancy.turns.waits, NeverFits) for worker in workers)
        model = queue.model
        # One that was not measured yet cannot be told.
        hopeless = hopeless or model.full + model.batch_need(1) > self.device_left - model.granted(1) // 5
        self.outcome.refusals += hopeless
        return hopeless


def _difference(seat: Seat, step: Step) -> str:
    changed = {
        name: getattr(step.seat, name)
        for name in ("doing", "granted", "resident", "full", "need", "asked_at", "load_seconds", "outside", "polls")
        if getattr(step.seat, name) != getattr(seat, name)
    }
    order = f", then {step.order}" if step.order else ""
    return f"{changed}{order}{', ' + str(len(step.granted)) + ' granted' if step.granted else ''}"
