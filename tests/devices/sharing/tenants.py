"""Tenancies over a table in memory, step by step: what tests of their transitions are told with."""

from __future__ import annotations

from dataclasses import replace

from sharing_parts import MIB, WALL

from dumbwaiter.devices.admission import Grant, Moved, Place
from dumbwaiter.devices.sharing.standing import Knowledge
from dumbwaiter.devices.sharing.steps import View
from dumbwaiter.devices.sharing.tenancy import Tenancy
from dumbwaiter.devices.sharing.wishes import Wish
from dumbwaiter.policies.admission import Device, Seat
from dumbwaiter.policies.footprints import Footprint, Measured

#: What the tests' models take of a device that has 1000 MiB to give out, in MiB.
CONTEXT, PARKED = 10, 2


def footprint(weights=200, needs=(100,), *, seconds=0.1, parked=PARKED, now=0.0):
    """Of a model whose batches of 1, 2, 4 ... need so many MiB. Estimates add their margin."""
    batches = {1 << place: Measured(need * MIB, seconds, WALL + now) for place, need in enumerate(needs)}
    return Footprint(
        context=CONTEXT * MIB,
        weights=weights * MIB,
        parked=None if parked is None else parked * MIB,
        load_seconds=1.0,
        park_seconds=0.1,
        wake_seconds=0.2,
        batches={"": batches} if batches else {},
    )


class House:
    """A device that has 1000 MiB to give out, and its tenants."""

    def __init__(self):
        self.now = 100.0
        self.seats = {}
        self.tenants = []
        self.device = Device("gpu", 1256 * MIB)  # the reserve is 256 MiB

    def tenant(self, model="a", known=None, **how):
        """One that has a runner, if *known* is a footprint; it is idle, and loaded a while ago."""
        tenant = Tenant(self, model, known, **how)
        if known is not None:
            tenant.moves_in()
            tenant.step(after=10.0)
        return tenant

    def neighbour(self, **record):
        """A process of which only its seat is seen, and its place."""
        place = len(self.seats)
        self.seats[place] = Seat(model="neighbour", looked_at=self.now, **record)
        return place


def lacks_room(house, need=900):
    """Somebody that waits and does not fit beside the others, with work for 0.1 s; its place."""
    return house.neighbour(need=need * MIB, seconds=0.1, longest=0.1, asked_at=house.now)


class Tenant:
    """A tenancy with what surrounds it: wishes, grants, a runner that does as it is told."""

    def __init__(self, house, model="a", known=None, *, declared=None, park_after=300.0, target=1):
        self.house = house
        knowledge = Knowledge(model=model, weight=1.0, declared=declared, footprint=known)
        self.tenancy = Tenancy(knowledge, park_after=park_after)
        self.target = target
        self.place = None
        self.grants = []
        self.is_placed = False

    @property
    def seat(self):
        return self.house.seats[self.place]

    def step(self, *, after=0.0, is_blurred=False):
        """One step, so many seconds later; what it granted is handed out."""
        house = self.house
        house.now += after
        if self.place is None:
            self.place = len(house.seats)
            house.seats[self.place] = self.tenancy.newcomer(house.now + WALL)
        view = View(house.device, dict(house.seats), self.place, house.now, house.now + WALL)
        step = self.tenancy.step(view, is_blurred=is_blurred)
        house.seats[self.place] = step.seat
        self.is_placed |= step.is_placed
        for grant in step.revoked:
            grant.is_revoked.set()
        for wish, rung in step.granted:
            self.tenancy.wishes.remove(wish)
            grant = Grant(min(rung.size, wish.want), self, batch=rung.size)
            self.tenancy.held.hand_out(grant)
            self.grants.append(grant)
        return step

    def release(self, grant, count):
        self.tenancy.held.released(grant)

    def received(self, grant, count):
        self.tenancy.held.received(grant, count)

    # --- what happens to it ---

    def asks_for_place(self, *, polls=False):
        self.tenancy.place = Wish[Place](0, polls=polls)

    def becomes_ready(self, measured=None):
        self.tenancy.place = None
        known = self.tenancy.known
        self.tenancy.settle_in(
            Knowledge(
                model=known.model,
                weight=1.0,
                declared=known.declared,
                footprint=known.footprint or measured,
                target=self.target,
                takes_one=self.target == 1,
                most=known.most,
            )
        )

    def moves_in(self):
        self.asks_for_place()
        self.step()
        assert self.is_placed
        self.becomes_ready()
        self.step()

    def learns(self, measured):
        """What its model takes was measured before."""
        self.tenancy.learn(replace(self.tenancy.known, footprint=measured))

    def wishes(self, want=1, *, polls=False):
        wish = Wish[Grant](want, polls=polls)
        self.tenancy.wishes.add(wish)
        return wish

    def runs(self, count=1):
        """It is granted *count* messages, and runs them."""
        self.wishes(count)
        self.step()
        grant = self.grants[-1]
        grant.shrink_to(count)
        return grant

    def has_moved(self, what, *, reserved, is_done=True):
        self.tenancy.moved(what, Moved(reserved=reserved * MIB, seconds=0.1, is_done=is_done))

    def is_parked(self):
        """Have it parked for want of work."""
        step = self.step(after=400.0)
        assert step.order == "park"
        self.has_moved("park", reserved=PARKED)
        self.step(after=0.1)
