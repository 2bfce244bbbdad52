"""The workers that a Supervisor keeps, added and taken away by the autoscaler."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from dumbwaiter.autoscale.fleet import Member
from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.cli.targets import spec_of, terms_of
from dumbwaiter.policies.retiring import Stage
from dumbwaiter.tasks import end, unless

if TYPE_CHECKING:
    from dumbwaiter.autoscale.following import OnScaled
    from dumbwaiter.cli.supervisor import Child, Plan, Supervisor
    from dumbwaiter.config import Settings

Plans = Mapping[str, Callable[[int], "Plan"]]
_MOST_NAMES = 1000


@contextlib.asynccontextmanager
async def scaling(
    settings: Settings, plans: Plans, supervisor: Supervisor, *, on_scaled: OnScaled
) -> AsyncIterator[None]:
    """Meanwhile the workers of the models in *plans* follow their work, until *supervisor* is stopped.

    A fault of ours in there stops it, and is raised at the end. Raises BrokerUnavailableError at the beginning.
    """
    from dumbwaiter.autoscale import Autoscaler, Pool  # noqa: PLC0415 - most have nothing to scale
    from dumbwaiter.autoscale.room import DeviceRoom  # noqa: PLC0415 - as above
    from dumbwaiter.demand import PoolWatcher  # noqa: PLC0415 - as above

    async with open_broker(settings.broker) as broker:
        store, pools = open_store(settings.blobs), []
        for model in plans:
            rules = settings.models[model].scaling
            room = DeviceRoom(terms_of(spec_of(model, settings), settings))
            pools.append(Pool(PoolWatcher(broker, store, model, rules), rules, room))
        autoscaler = Autoscaler(pools, SupervisedFleet(supervisor, plans), on_scaled=on_scaled)
        following = asyncio.create_task(unless(supervisor.stop, autoscaler.run()))
        following.add_done_callback(lambda _: supervisor.stop.set())
        try:
            yield
            await following
        finally:
            await end([following])


class SupervisedFleet:
    """Workers of *supervisor*; *plans* makes the plan of the n-th worker of a model, by its name."""

    def __init__(self, supervisor: Supervisor, plans: Plans) -> None:
        self._supervisor = supervisor
        self._plans = plans
        self._names: dict[str, dict[str, None]] = {model: {} for model in plans}

    def members(self, model: str) -> Sequence[Member]:
        """The workers of *model* that are kept, the oldest first, without those that were told to retire."""
        return [_member(child) for child in self._of(model) if not child.retired.is_set()]

    def past(self, model: str) -> Collection[str]:
        """The names by which workers of *model* announced themselves here that died or left, or were told to retire."""
        names, children = self._names[model], self._of(model)
        # Once one has left nobody else remembers how it called itself.
        names.update(dict.fromkeys(name for child in children for name in child.workers))
        while len(names) > _MOST_NAMES:
            del names[next(iter(names))]
        return names.keys() - {_announced_as(child) for child in children if not child.retired.is_set()}

    def start(self, model: str) -> None:
        """Start one more worker of *model*, under the first number that is free."""
        taken = {child.plan.name for child in self._of(model)}
        number = 1
        while (plan := self._plans[model](number)).name in taken:
            number += 1
        self._supervisor.add(plan)

    def retire(self, model: str, name: str) -> None:
        """Have the worker *name* take nothing more and leave when what runs has ended, however long that takes."""
        for child in self._of(model):
            if child.plan.name == name:
                self._supervisor.retire(child)
        self.past(model)

    def _of(self, model: str) -> list[Child]:
        return [child for child in self._supervisor.children if child.plan.model == model]


def _member(child: Child) -> Member:
    state = child.report.state
    if child.deaths and (child.process is None or state != "ready"):
        state = "failing"  # it has died, and until it is ready nothing suggests that it will not do so again
    return Member(
        name=child.plan.name,
        state=cast(Stage, state),
        reason=child.last_words,
        worker=_announced_as(child),
    )


def _announced_as(child: Child) -> str:
    """The name of its process; empty where that has died, or is new and has not told it."""
    return "" if child.process is None else child.report.worker
