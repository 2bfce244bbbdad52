"""Models, their workers and a device as discrete events, with the real admission policy: what simulations are made of.

What the device really holds is kept apart from what the seats say. A worker looks whenever anything happened, or when
it was told to. Switches of this simulation, none of the policy, make it go wrong.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence

import msgspec
from admission_parts import GIB, RIGHT, BrokenRuleError, Model, Outcome, Switches, Worker

from dumbwaiter.policies import admission
from dumbwaiter.policies.admission import IDLE, PARKING, POLLING, RUNNING, Device, Grant, NeverFits, Rung, Seat

#: True times are up to so many times those that were predicted.
SLOWNESS = 1.5
#: So often may somebody look in vain in a row: once when each other one's residency ends, and some.
_MOST_LOOKS = 16


class Simulation:
    def __init__(
        self,
        capacity: int,
        *,
        seed: int,
        switches: Switches = RIGHT,
        trace: Callable[[str], None] | None = None,
        hidden: float | None = None,
        is_steady: bool = False,
    ) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.device = Device("gpu", capacity, quarantined={})
        self.quarantined: dict[int, float] = self.device.quarantined  # type: ignore[assignment]
        reserve = capacity - self.device.limit
        if switches.ignores_reserve:
            self.device = Device("gpu", capacity, outside=-reserve, quarantined=self.quarantined)
        #: Fragmentation, caches of libraries: what no seat knows of, and what the reserve is for.
        self.hidden = int(reserve * (self.random.random() if hidden is None else hidden))
        self.capacity = capacity
        self.seats: dict[int, Seat] = {}
        self.held: dict[int, int] = {}
        self.workers: dict[int, Worker] = {}
        self.events: list[tuple[float, int, str, int, int]] = []
        self.count = 0
        self.hanging: set[int] = set()
        self.next_look = math.inf
        self.switches = switches
        self.trace = trace
        self.outcome = Outcome()
        self.is_steady = is_steady
        self.shuffles = not is_steady and self.random.random() < 0.15
        self.hang_rate = self.crash_rate = 0.0
        self.places = 0

    # --- the world ------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        if self.trace is not None:
            self.trace(f"{self.now:9.3f}  {text}")

    def at(self, when: float, what: str, place: int = -1, epoch: int = 0) -> None:
        self.count += 1
        heapq.heappush(self.events, (when, self.count, what, place, epoch))

    def add(self, model: Model, *, work: int = 0, polls: bool = False, probe_seconds: float = 0.0) -> Worker:
        place, self.places = self.places, self.places + 1
        worker = Worker(model, place, work, polls, probe_seconds)
        self.workers[place] = worker
        self.seats[place] = model.seat(self.now, probe_seconds=probe_seconds)
        self.held[place] = 0
        self.say(f"{model.name} takes place {place}{', probes first' if probe_seconds else ''}")
        self.go_on(worker)
        return worker

    def lasts(self, seconds: float) -> float:
        return seconds if self.is_steady else seconds * self.random.uniform(2.0 - SLOWNESS, SLOWNESS)

    # --- what a worker does ---------------------------------------------------------------------------------------

    def go_on(self, worker: Worker) -> None:
        """Ask for the next grant, if there is anything to ask for."""
        place = worker.place
        if self.seats[place].asked_at is not None or self.seats[place].granted:
            return
        if not (worker.probe_seconds or worker.work or worker.polls):
            return
        self.seats[place] = admission.ask(
            self.seats,
            place,
            self.now,
            polls=not worker.work and not worker.probe_seconds,
            probes=worker.probe_seconds > 0,
        )
        worker.asked_at = self.now
        self.promise(worker)

    def promise(self, worker: Worker, *, anew: bool = True) -> None:
        bound = math.inf
        if not self.hanging:
            bound = admission.worst_wait(self.device, self.seats, worker.place, now=self.now, slowness=SLOWNESS)
        until = self.now + bound
        if anew or until > worker.must_start_by:
            worker.must_start_by, worker.bound, worker.promised_at = until, bound, self.now

    def disturbed(self, *, anew: bool = False) -> None:
        """Somebody joined, died, hangs: what was promised to those who wait begins anew."""
        for place, worker in self.workers.items():
            if self.seats[place].asked_at is not None:
                self.promise(worker, anew=anew)

    def grant(self, worker: Worker, grant: Grant) -> None:
        place, seat = worker.place, self.seats[worker.place]
        wait = self.now - worker.asked_at
        outcome, name = self.outcome, worker.model.name
        if self.now > worker.must_start_by + 1e-6:
            raise BrokenRuleError(f"{name} at place {place} waited {wait:.3f} s; its bound was {worker.bound:.3f} s")
        outcome.longest_wait[name] = max(wait, outcome.longest_wait.get(name, 0.0))
        if worker.bound < math.inf:
            outcome.waits_over_bound.append((self.now - worker.promised_at) / worker.bound)
        outcome.backfills += not grant.in_turn
        self.seats[place] = admission.take(seat, grant, self.now)
        self.held[place] += grant.extra + grant.nbytes
        worker.epoch += 1
        self.say(
            f"{name} ({place}) gets {self.seats[place].doing} {grant.size} x, {grant.nbytes / GIB:.2f} GiB + "
            f"{grant.extra / GIB:.2f} GiB{'' if grant.in_turn else ', beside the head'}, after {wait:.3f} s"
        )
        # With each grant goes what it was for: a batch takes that many from the queue.
        worker.work = max(worker.work - grant.size, 0) if not (seat.polls or seat.probes) else worker.work
        if grant.extra:
            self.at(self.now + self.lasts(seat.load_seconds), "loaded", place, worker.epoch)
        else:
            self.begin(worker, grant.seconds)
        worker_fate = self.random.random() if self.crash_rate else 1.0
        if worker_fate < self.crash_rate:
            self.at(self.now + self.random.random() * (grant.until - self.now), "crash", place, worker.epoch)

    def begin(self, worker: Worker, seconds: float) -> None:
        """The batch, poll or probe begins."""
        place, seat = worker.place, self.seats[worker.place]
        if seat.doing == POLLING:
            if worker.work:
                self.start_found(worker)
            else:
                self.at(self.now + admission.POLL_SLICE, "slice", place, worker.epoch)
            return
        if not seat.probes:
            used = self.outcome.used
            name = worker.model.name
            used[name] = used.get(name, 0.0) + seconds * (seat.full + seat.granted) / 1e9
        lasting = self.lasts(seconds)
        if self.hang_rate and self.random.random() < self.hang_rate:
            lasting = 8.0 * seconds + 3.0
            self.outcome.hangs += 1
            self.hanging.add(place)
            self.disturbed(anew=True)
            self.say(f"{seat.model} ({place}) hangs")
        self.at(self.now + lasting, "end", place, worker.epoch)

    def start_found(self, worker: Worker) -> None:
        self.seats[worker.place] = admission.found_work(self.seats[worker.place], self.now)
        worker.epoch += 1
        worker.work -= 1
        self.say(f"{worker.model.name} ({worker.place}) finds something to do")
        self.begin(worker, worker.model.ladder[0].seconds)

    # --- what happens ---------------------------------------------------------------------------------------------

    def on_arrive(self, worker: Worker, count: int) -> None:
        worker.work += count
        seat = self.seats[worker.place]
        if seat.doing == POLLING:
            self.start_found(worker)
        elif seat.asked_at is not None and seat.polls:
            self.seats[worker.place] = msgspec.structs.replace(seat, polls=False)
        else:
            self.go_on(worker)

    def on_loaded(self, worker: Worker) -> None:
        seat = self.seats[worker.place]
        self.seats[worker.place] = admission.loaded(seat, self.now)
        rest = max(seat.until - seat.granted_at - seat.load_seconds, 0.0)
        self.begin(worker, rest)

    def on_end(self, worker: Worker) -> None:
        place, seat = worker.place, self.seats[worker.place]
        hung = place in self.hanging
        self.hanging.discard(place)
        self.held[place] -= seat.granted
        if seat.doing == RUNNING:
            self.outcome.batches[seat.model] = self.outcome.batches.get(seat.model, 0) + 1
        self.seats[place] = admission.give_back(seat, self.now, was_used=seat.doing == RUNNING)
        if seat.probes:
            worker.probe_seconds = 0.0
            self.seats[place] = msgspec.structs.replace(self.seats[place], longest=worker.model.ladder[-1].seconds)
        worker.epoch += 1
        self.say(f"{seat.model} ({place}) has done {seat.doing}")
        self.go_on(worker)
        if hung:
            self.disturbed(anew=True)

    def on_parked(self, worker: Worker) -> None:
        if self.seats[worker.place].granted:
            raise BrokenRuleError(f"{worker.model.name} at place {worker.place} was parked while it ran")
        self.seats[worker.place] = admission.parked(self.seats[worker.place])
        self.held[worker.place] = worker.model.parked
        self.say(f"{worker.model.name} ({worker.place}) is parked")

    def on_crash(self, worker: Worker) -> None:
        place = worker.place
        self.say(f"{worker.model.name} ({place}) dies while {self.seats[place].doing}")
        self.outcome.crashes += 1
        del self.workers[place]
        if place in self.hanging:
            self.hanging.discard(place)
            self.disturbed(anew=True)
        self.quarantined[place] = self.now
        kind = self.random.random()
        if kind < 0.85:
            self.at(self.now + (self.random.random() if kind < 0.7 else self.random.uniform(1.0, 9.0)), "freed", place)
        else:
            self.at(self.now + admission.LONGEST_QUARANTINE, "leaked", place)
        if self.random.random() < 0.8:
            self.disturbed()
            self.add(worker.model, work=worker.work + 1, polls=worker.polls, probe_seconds=worker.probe_seconds)
        self.disturbed()

    def on_freed(self, place: int) -> None:
        self.say(f"the memory of place {place} is free")
        del self.quarantined[place], self.seats[place], self.held[place]
        self.disturbed()

    def give_up(self, worker: Worker, refusal: NeverFits) -> None:
        """A worker that can never run ends, and so does its context."""
        self.say(f"error: {refusal.reason}")
        self.outcome.errors += 1
        self.check_hopeless(worker)
        del self.workers[worker.place], self.seats[worker.place], self.held[worker.place]
        self.disturbed()

    def happen(self, what: str, place: int, epoch: int) -> None:
        if what in {"freed", "leaked"}:
            if what == "freed":
                self.on_freed(place)
            self.outcome.leaks += what == "leaked"
            return
        worker = self.workers.get(place)
        if worker is None:
            return
        if what == "arrive":
            self.on_arrive(worker, epoch)
        elif what == "parked":
            self.on_parked(worker)
        elif worker.epoch == epoch:
            {"loaded": self.on_loaded, "end": self.on_end, "crash": self.on_crash, "slice": lambda _: None}[what](
                worker
            )

    # --- everybody looks ------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """All look, until nobody has anything more to do at this moment."""
        self.next_look = math.inf
        for _ in range(50):
            waiting = [
                (seat.start_tag, seat.asked_at, place)
                for place, seat in self.seats.items()
                if seat.asked_at is not None and place in self.workers
            ]
            waiting.sort()
            if self.shuffles:
                self.random.shuffle(waiting)
            changed = False
            for _, _, place in waiting:
                changed |= self.look(self.workers[place])
            if waiting:
                changed |= self.make_room()
            if not (changed and waiting):
                return
        raise BrokenRuleError("workers do not come to rest")

    def look(self, worker: Worker) -> bool:
        """One that waits looks; True if others should look again."""
        if self.switches.first_fit:
            self.look_first_fit(worker)
            return False
        place = worker.place
        self.seats[place] = admission.looked(self.seats[place], self.now)
        if worker.probe_seconds:
            ladder: Sequence[Rung] = (Rung(0, worker.model.ladder[0].nbytes, worker.probe_seconds),)
        else:
            ladder = worker.model.ladder if not self.seats[place].polls else worker.model.ladder[:1]
        decision = admission.decide(self.device, self.seats, place, self.now, ladder)
        if isinstance(decision, NeverFits):
            self.give_up(worker, decision)
            return True
        if isinstance(decision, Grant):
            self.grant(worker, decision)
            return self.shuffles
        self.next_look = min(self.next_look, decision.until)
        return False

    def look_first_fit(self, worker: Worker) -> None:
        """As nearly everybody does it: whoever comes when it fits gets it, and nobody leaves for anybody."""
        seat = self.seats[worker.place]
        room = self.device.limit - sum(other.resident + other.granted for other in self.seats.values())
        if seat.extra + seat.need <= room:
            until = self.now + seat.load_seconds + seat.seconds
            worker.must_start_by = math.inf
            self.grant(worker, Grant(1, seat.need, seat.extra, seat.seconds, True, until, until + 10.0))

    def make_room(self) -> bool:
        """Those who hold what others need give it back; True if some is free at once."""
        changed = False
        if self.switches.first_fit:
            return False
        for place, worker in self.workers.items():
            seat = self.seats[place]
            if seat.doing == POLLING and admission.ought_to_yield(self.device, self.seats, place, self.now):
                self.say(f"{seat.model} ({place}) stops polling")
                self.on_end(worker)
                changed = True
            elif (
                seat.doing == IDLE
                and seat.evictable
                and admission.ought_to_park(self.device, self.seats, place, self.now)
            ):
                self.park(worker)
            elif self.switches.evicts_busy and seat.doing == RUNNING:
                pretence = {**self.seats, place: msgspec.structs.replace(seat, doing=IDLE)}
                if admission.ought_to_park(self.device, pretence, place, self.now):
                    self.at(self.now + worker.model.park_seconds, "parked", place)
        return changed

    def park(self, worker: Worker) -> None:
        self.outcome.evictions += 1
        self.seats[worker.place] = admission.begin_to_park(self.seats[worker.place], self.now)
        self.at(self.now + self.lasts(worker.model.park_seconds), "parked", worker.place)
        self.say(f"{worker.model.name} ({worker.place}) begins to park")

    # --- what must hold -------------------------------------------------------------------------------------------

    def check(self) -> None:
        if sum(self.held.values()) + self.hidden > self.capacity:
            total = (sum(self.held.values()) + self.hidden) / GIB
            raise BrokenRuleError(f"over-committed: {total:.3f} GiB of {self.capacity / GIB:.3f} GiB are used")
        first: tuple[float, float, int] | None = None
        is_awaited = False
        for place, worker in self.workers.items():
            seat = self.seats[place]
            if seat.asked_at is None:
                continue
            is_awaited = True
            if self.now > worker.must_start_by + 1e-6 and not self.switches.first_fit:
                raise BrokenRuleError(
                    f"{seat.model} at place {place} waits for {self.now - worker.asked_at:.3f} s; its bound was "
                    f"{worker.bound:.3f} s"
                )
            key = (seat.start_tag, seat.asked_at, place)
            if seat.doing == IDLE and (first is None or key < first):
                first = key
        if is_awaited and not self.switches.first_fit:
            self.check_progress(first)

    def check_progress(self, first: tuple[float, float, int] | None) -> None:
        if not self.events and self.next_look == math.inf:
            raise BrokenRuleError("somebody waits, and nothing will ever happen")
        if first is None or any(seat.asked_at is not None and seat.doing == PARKING for seat in self.seats.values()):
            return
        seat = self.seats[first[2]]
        others = [other.doing for place, other in self.seats.items() if place not in self.quarantined]
        exclusive = "probing" in others or (seat.load_seconds > 0.0 and "loading" in others)
        is_quiet = not set(others) - {IDLE, PARKING} and not any(
            self.now < since + admission.LONGEST_QUARANTINE for since in self.quarantined.values()
        )
        if exclusive or (seat.probes and not is_quiet):
            return
        held = sum(other.resident + other.granted for other in self.seats.values())
        if held + seat.full - seat.resident + seat.need <= self.device.limit:
            raise BrokenRuleError(f"{seat.model} at place {first[2]} is first in line and fits, and does not run")

    def check_hopeless(self, worker: Worker) -> None:
        """An error needs a proof: not even with all that can ever be given back does it fit."""
        kept = 0
        for place, seat in self.seats.items():
            if place in self.quarantined:
                leaked = self.now >= self.quarantined[place] + admission.LONGEST_QUARANTINE
                kept += seat.resident + seat.granted if leaked else 0
            elif place != worker.place:
                kept += min(seat.resident, seat.parked)
        if kept + worker.model.full + worker.model.ladder[0].nbytes <= self.device.limit:
            raise BrokenRuleError(f"{worker.model.name} could run and was refused")

    def run(self, *, events: int, until: float = math.inf) -> Outcome:
        """Let so many events happen, or until nothing more would."""
        looks = 0
        self.settle()
        self.check()
        for _ in range(events):
            when = self.events[0][0] if self.events else math.inf
            if min(when, self.next_look) == math.inf or min(when, self.next_look) > until:
                break
            self.outcome.events += 1
            if self.next_look < when:
                self.now = self.next_look
                looks += 1
                if looks > _MOST_LOOKS:
                    raise BrokenRuleError("somebody waits, looks again and again, and nothing happens")
            else:
                looks = 0
                self.now, _, what, place, epoch = heapq.heappop(self.events)
                self.happen(what, place, epoch)
            self.settle()
            self.check()
        self.outcome.seconds = self.now
        return self.outcome
