"""The workers of a supervisor as the autoscaler sees them: by state, by name, and those that are past."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dumbwaiter.autoscale.choosing import Change, change, others_of
from dumbwaiter.blobs.presence import WorkerStatus
from dumbwaiter.cli.fleet import SupervisedFleet
from dumbwaiter.cli.status_pipe import Report
from dumbwaiter.cli.supervisor import Child, Plan


def plan(number: int) -> Plan:
    return Plan("cats" if number == 1 else f"cats-{number}", "cats", (), comes_and_goes=True)


class Keeper:
    """Has children, and starts no process."""

    def __init__(self) -> None:
        self.children = [Child(Plan("gateway", None, (), role="gateway"))]

    def add(self, plan: Plan) -> None:
        self.children.append(Child(plan))

    def retire(self, child: Child) -> None:
        child.retired.set()


def a_fleet(count: int) -> tuple[SupervisedFleet, list[Child]]:
    keeper = Keeper()
    fleet = SupervisedFleet(keeper, {"cats": plan, "dogs": plan})
    for _ in range(count):
        fleet.start("cats")
    return fleet, keeper.children[1:]


def lives(child: Child, state: str, worker: str = "", reason: str = "") -> None:
    """Its process is there and says so."""
    child.process = child.process or SimpleNamespace(pid=1)
    child.report = Report(state=state, worker=worker, reason=reason)
    child.heed()


def dies(child: Child) -> None:
    child.process, child.deaths, child.last_words = None, child.deaths + 1, "was killed by SIGKILL"


def states(fleet: SupervisedFleet) -> list[str]:
    return [member.state for member in fleet.members("cats")]


def test_workers_are_numbered_and_a_number_that_is_free_again_is_taken():
    fleet, children = a_fleet(3)
    assert [member.name for member in fleet.members("cats")] == ["cats", "cats-2", "cats-3"]
    assert fleet.members("dogs") == []
    fleet._supervisor.children.remove(children[1])
    fleet.start("cats")
    assert [member.name for member in fleet.members("cats")] == ["cats", "cats-3", "cats-2"]


def test_one_that_retires_keeps_its_number_until_it_has_left_and_counts_no_more():
    fleet, children = a_fleet(2)
    lives(children[0], "ready", "w1")
    fleet.retire("cats", "cats")
    assert children[0].retired.is_set()
    assert [member.name for member in fleet.members("cats")] == ["cats-2"]
    assert list(fleet.past("cats")) == ["w1"]
    fleet.start("cats")
    assert [member.name for member in fleet.members("cats")] == ["cats-2", "cats-3"]
    fleet._supervisor.children.remove(children[0])
    assert list(fleet.past("cats")) == ["w1"], "the store may say for a while that it is ready"


def test_the_name_of_one_that_left_by_itself_is_past_too():
    fleet, children = a_fleet(2)
    lives(children[0], "ready", "w1")
    lives(children[1], "ready", "w2")
    assert list(fleet.past("cats")) == []
    fleet._supervisor.children.remove(children[0])
    assert list(fleet.past("cats")) == ["w1"]


def test_a_member_says_how_it_is_and_by_which_name_it_is_announced():
    fleet, (child,) = a_fleet(1)
    assert [(member.state, member.worker) for member in fleet.members("cats")] == [("starting", "")]
    lives(child, "loading", "w1")
    lives(child, "failing", "w1", reason="no weights")
    (member,) = fleet.members("cats")
    assert (member.state, member.worker, member.reason) == ("failing", "w1", "no weights")
    lives(child, "ready", "w1")
    assert states(fleet) == ["ready"]
    assert not fleet.past("cats")


def test_one_that_has_died_fails_until_it_is_ready_again():
    fleet, (child,) = a_fleet(1)
    lives(child, "ready", "w1")
    dies(child)
    (member,) = fleet.members("cats")
    assert (member.state, member.worker, member.reason) == ("failing", "", "was killed by SIGKILL")
    assert list(fleet.past("cats")) == ["w1"]
    lives(child, "starting")
    lives(child, "loading", "w2")
    assert states(fleet) == ["failing"], "it has died once while it loaded, and may again"
    lives(child, "ready", "w2")
    assert states(fleet) == ["ready"]
    assert list(fleet.past("cats")) == ["w1"]


@pytest.mark.parametrize("told", ["nothing", "how it is", "its name"])
def test_what_was_started_in_the_place_of_a_dead_one_is_no_surplus_beside_that(told):
    """Nobody looked while it was dead, and the store still says that it is ready."""
    fleet, (child,) = a_fleet(1)
    lives(child, "ready", "w1")
    dies(child)
    if told == "nothing":
        child.process, child.report = SimpleNamespace(pid=2), Report(state="starting")
    else:
        lives(child, "loading", "w2" if told == "its name" else "")
    own, said = fleet.members("cats"), [WorkerStatus(worker="w1", model="cats", state="ready", started_at=1.0)]
    assert list(fleet.past("cats")) == ["w1"]
    assert change(1, own, others_of(said, own, fleet.past("cats"), {}), said) == Change()


def test_a_new_name_is_not_past_before_it_is_written_down_with_the_others():
    fleet, (child,) = a_fleet(1)
    lives(child, "ready", "w1")
    dies(child)
    child.process, child.report = SimpleNamespace(pid=2), Report(state="loading", worker="w2")
    assert list(fleet.past("cats")) == ["w1"]
    child.heed()
    assert list(fleet.past("cats")) == ["w1"]
