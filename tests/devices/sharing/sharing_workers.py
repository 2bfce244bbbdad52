"""A worker of a history: its queue, its runner with what that really holds, and the consumer that pulls."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from sharing_parts import WALL, BrokenRuleError, Model

from dumbwaiter.devices.admission import Grant, Moved, Place
from dumbwaiter.devices.sharing.census import Census
from dumbwaiter.devices.sharing.standing import Knowledge
from dumbwaiter.devices.sharing.tenancy import Tenancy
from dumbwaiter.devices.sharing.wishes import Wish
from dumbwaiter.policies import footprints
from dumbwaiter.policies.admission import PROBING, Seat
from dumbwaiter.policies.batching import pull_size, was_nearly_full
from dumbwaiter.policies.footprints import Footprint, Observation

if TYPE_CHECKING:
    from sharing_world import World


#: A receive that looks for work waits so long for some.
_RECEIVE_WAIT = 20.0


class Queue:
    """The messages of a model, which all its workers share."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.ready = 0
        self.pending = 0
        """With those that somebody holds."""
        self.moved_on_at = 0.0
        self.is_endless = False
        """Its messages never come to an end; it is the others' that have to."""


class Runner:
    """What a runner's process really has of the device, in bytes."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.base = 0
        self.cache = 0
        self.running = 0
        self.is_ready = False

    @property
    def held(self) -> int:
        return self.base + max(self.cache, self.running)

    @property
    def is_loaded(self) -> bool:
        return self.base == self.model.full


class Worker:
    """One worker, as ledger_admission.py and its consumer act for it."""

    def __init__(self, world: World, queue: Queue, known: Footprint | None) -> None:
        model = queue.model
        self.world, self.queue, self.model = world, queue, model
        self.tenancy = Tenancy(
            Knowledge(model=model.name, weight=model.weight, declared=None, footprint=known),
            park_after=model.park_after,
        )
        self.census = Census(world.scripted)
        self.is_alive = True
        self.place: int | None = None
        self.seat: Seat | None = None
        self.runner: Runner | None = None
        self.order: str | None = None
        self.is_cold = False
        self.peeks = False
        self.failures = 0
        self.due = math.inf
        self.looks: list[float] = []
        # --- the consumer's ---
        self.wishes: dict[Wish[Grant], bool] = {}
        """All that are open, and whether such a one is a single message's that was fetched."""
        self.receiving: tuple[Grant, bool] | None = None
        self.in_runner: list[Grant] = []
        self.batch: list[Grant] = []
        self.most: int | None = None
        self.last_was_full = False

    # --- a runner's life ---

    def seek_place(self) -> None:
        self.tenancy.place = Wish[Place](0, polls=self.is_cold)
        self.world.look_soon(self)

    def start_runner(self) -> None:
        """It has a place; its memory fills at once, so that nothing is overlooked."""
        self.tenancy.place = None
        model, world = self.model, self.world
        self.runner = runner = Runner(model)
        if self.tenancy.known.must_be_measured:
            free = world.free
            if model.full + model.batch_need(1) > free:
                runner.base = min(model.full, free)
                world.after(model.load_seconds, lambda: self.die_of_load(runner))
                return
            measured = model.footprint(world.now, most=free - model.full)
            runner.base, runner.cache = model.full, max(one.nbytes for one in measured.batches[""].values())
        else:
            measured = model.footprint(world.now)
            runner.base = model.full
        world.check_memory(self)
        world.after(world.lasts(model.load_seconds), lambda: self.become_ready(runner, measured))

    def die_of_load(self, runner: Runner) -> None:
        if self.is_alive and self.runner is runner:
            self.world.outcome.ran_out += 1
            self.lose_runner(0.0, disturbs=False)

    def become_ready(self, runner: Runner, measured: Footprint) -> None:
        if not self.is_alive or self.runner is not runner:
            return
        runner.cache, runner.is_ready, self.is_cold, self.failures = 0, True, False, 0
        known = self.tenancy.known
        self.tenancy.settle_in(
            Knowledge(
                model=known.model,
                weight=known.weight,
                declared=None,
                footprint=known.footprint or measured,
                target=self.model.target,
                takes_one=self.model.takes_one,
                most=known.most,
            )
        )
        self.world.footprints[self.model.name] = known.footprint or measured
        self.world.look_soon(self)
        self.pull()

    def lose_runner(self, freed_after: float, *, disturbs: bool = True) -> None:
        """The runner's process has died, whatever it was doing."""
        world = self.world
        runner, self.runner, self.order = self.runner, None, None
        if self.place is not None:
            world.bury(self.place, 0 if runner is None else runner.held, freed_after)
        self.place = self.seat = None
        self.tenancy.move_out()
        self.hand_back(len(self.in_runner) + len(self.batch))
        for grant in [*self.in_runner, *self.batch]:
            grant.give_back(1)
        self.in_runner, self.batch = [], []
        if self.is_alive:
            world.after(0.05 * 2 ** min(self.failures, 5), self.restart)
            self.failures += 1
        self.end_receive_if_revoked()
        if disturbs:
            world.disturbed()

    def restart(self) -> None:
        if self.is_alive and self.runner is None and self.tenancy.place is None:
            self.seek_place()

    # --- orders ---

    def carry_out(self, order: str) -> None:
        world, runner, model = self.world, self.runner, self.model
        if runner is None or not runner.is_ready or self.in_runner or self.batch:
            raise BrokenRuleError(f"{model.name} is told to {order} while its runner is at work, or has none")
        world.outcome.orders[order] = world.outcome.orders.get(order, 0) + 1
        self.order = order
        self.world.happenings.append(self.world.now)
        seconds = {"empty": 0.002, "retire": 0.1}.get(order, model.move_seconds)
        fails = world.dice.random() < world.failure_rate
        if order == "wake" and not fails:
            runner.base = model.full
            world.check_memory(self)
        world.after(world.lasts(seconds), lambda: self.finish(runner, order, fails))
        if world.dice.random() < world.death_rate:
            world.after(world.dice.random() * seconds, lambda: self.die_in_order(runner, order))

    def die_in_order(self, runner: Runner, order: str) -> None:
        if self.runner is runner and self.order == order:
            self.world.outcome.deaths_in_orders += 1
            self.world.kill(self, whole=self.world.dice.random() < 0.3)

    def finish(self, runner: Runner, order: str, fails: bool) -> None:
        if self.runner is not runner or self.order != order:
            return
        if order == "retire":
            self.is_cold = True
            self.failures = 0
            self.lose_runner(0.01, disturbs=False)
            return
        model = self.model
        if not (order == "empty" and self.world.switches.gives_back_unemptied):
            runner.cache = 0
        if order == "park" and not fails:
            runner.base = model.context + (model.parked or 0)
        self.order = None
        is_done = not fails or order == "empty"
        self.tenancy.moved(order, Moved(reserved=runner.base - model.context, seconds=0.01, is_done=is_done))
        self.world.look_soon(self)

    # --- the consumer ---

    def pull(self) -> None:
        """Ask for a grant, if the runner could take more."""
        if (
            self.runner is None
            or not self.runner.is_ready
            or self.receiving is not None
            or False in self.wishes.values()
        ):
            return
        in_hand = len(self.in_runner) + len(self.batch)
        helping = 4 if self.model.takes_one else self.model.target
        size = pull_size(in_hand, helping, last_was_full=self.last_was_full)
        if size:
            self.wish(size, polls=in_hand == 0 and not self.last_was_full, is_fetched=False)

    def wish(self, want: int, *, polls: bool, is_fetched: bool) -> None:
        wish = Wish[Grant](want, polls=polls)
        rung = self.tenancy.go_on(want, polls=polls)
        if rung is not None:
            self.world.outcome.gone_on += 1
            self.wishes[wish] = is_fetched
            self.world.hand_out(self, wish, rung)
            return
        self.wishes[wish] = is_fetched
        self.tenancy.wishes.add(wish)
        self.world.look_soon(self)

    def cancel_wishes(self) -> None:
        """As if those who wait had been cancelled, and asked anew."""
        for wish, is_fetched in list(self.wishes.items()):
            del self.wishes[wish]
            self.tenancy.wishes.remove(wish)
            wish.granted.cancel()
            self.world.outcome.cancelled += 1
            if is_fetched:
                self.hand_back(1)
        self.world.look_soon(self)
        self.pull()

    def on_grant(self, wish: Wish[Grant], grant: Grant) -> None:
        is_fetched = self.wishes.pop(wish)
        self.world.happenings.append(self.world.now)
        if is_fetched:
            grant.shrink_to(1)
            self.give_to_runner([grant])
            return
        # What only looks may wait for a message, unless there was found to be one meanwhile.
        waits = not self.in_runner and not self.batch and not self.last_was_full
        self.receiving = (grant, waits)
        self.world.after(self.world.dice.uniform(0.0005, 0.003), lambda: self.receive(grant))
        if waits:
            self.world.after(_RECEIVE_WAIT, lambda: self.end_receive(grant))

    def receive(self, grant: Grant) -> None:
        if self.receiving is None or self.receiving[0] is not grant:
            return
        if self.queue.ready or not self.receiving[1] or grant.is_revoked.is_set():
            self.end_receive(grant)

    def end_receive_if_revoked(self) -> None:
        if self.receiving is not None and self.receiving[1] and self.receiving[0].is_revoked.is_set():
            self.end_receive(self.receiving[0])

    def end_receive(self, grant: Grant) -> None:
        if not self.is_alive or self.receiving is None or self.receiving[0] is not grant:
            return
        self.receiving = None
        came = 0 if grant.is_revoked.is_set() and self.world.dice.random() < 0.5 else min(grant.size, self.queue.ready)
        self.queue.ready -= came
        grant.shrink_to(came)
        self.last_was_full = was_nearly_full(grant.size, came)
        self.give_to_runner([grant] * came)
        self.pull()

    def give_to_runner(self, grants: list[Grant]) -> None:
        runner = self.runner
        if runner is None or not runner.is_ready or any(grant.is_void for grant in grants):
            self.hand_back(len(grants))
            for grant in grants:
                grant.give_back(1)
            return
        self.in_runner += grants
        if grants:
            self.most = grants[-1].batch
            self.run_batch()

    def hand_back(self, count: int) -> None:
        if count:
            self.queue.ready += count
            self.world.told_of_work(self.queue)

    # --- batches ---

    def run_batch(self) -> None:
        runner, world, model = self.runner, self.world, self.model
        if runner is None or self.batch or not self.in_runner:
            return
        if self.order is not None or not runner.is_loaded:
            raise BrokenRuleError(f"{model.name} has something to run while its memory is being moved, or parked")
        most = 1 if model.takes_one else min(self.most or model.target, model.target)
        self.batch, self.in_runner = self.in_runner[:most], self.in_runner[most:]
        size = len(self.batch)
        needs = model.batch_need(size)
        # The margin is for what differs from batch to batch; where the device has no room for it, it is not granted.
        if model.full + model.granted(model.target) < 0.8 * world.capacity and size in model.sizes():
            needs = int(world.dice.uniform(0.8, 1.0) * model.granted(size))
        is_exact = runner.cache == 0
        probes = self.seat is not None and self.seat.doing == PROBING
        if probes and needs > world.free + runner.cache:
            world.outcome.ran_out += 1
            self.observe(Observation("", size, needs // 2, 0.01, is_out_of_memory=True))
            self.most, self.in_runner, self.batch = max(1, size // 2), self.batch + self.in_runner, []
            if size == 1:
                raise BrokenRuleError(f"{model.name} finds no room for one input although it probes")
            self.run_batch()
            return
        runner.running = needs
        world.check_memory(self)
        seconds = model.batch_seconds(size)
        world.after(world.lasts(seconds), lambda: self.end_batch(runner, size, is_exact))

    def end_batch(self, runner: Runner, size: int, is_exact: bool) -> None:
        if self.runner is not runner:
            return
        model = self.model
        runner.cache = took = max(runner.cache, runner.running)
        runner.running = 0
        self.world.happenings.append(self.world.now)
        self.observe(Observation("", size, took, model.batch_seconds(size), is_exact=is_exact))
        batch, self.batch = self.batch, []
        for grant in batch:
            grant.give_back(1)
        self.queue.pending -= size
        self.queue.moved_on_at = self.world.now
        self.world.outcome.served += size
        self.run_batch()
        self.pull()

    def observe(self, observation: Observation) -> None:
        known, wall = self.tenancy.known, self.world.now + WALL
        self.tenancy.held.used(observation.nbytes)
        footprint = known.footprint or Footprint()
        if footprints.tells(footprint, observation, wall):
            footprint = footprints.observed(footprint, observation, wall, room=known.most)
            self.tenancy.learn(replace(known, footprint=footprint))
            self.world.footprints[self.model.name] = footprint

    # --- as an admission, for grants ---

    def release(self, grant: Grant, count: int) -> None:
        if self.tenancy.held.released(grant) and self.tenancy.must_look:
            self.world.look_soon(self)

    def received(self, grant: Grant, count: int) -> None:
        if self.tenancy.held.received(grant, count) and self.tenancy.must_look:
            self.world.look_soon(self)
