"""Seats live and die with real processes, and nothing that happens to one of them stalls or misleads the others."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import time

import psutil
import pytest
from ledger_process import Holding

from dumbwaiter.devices.ledger.errors import LedgerBusyError
from dumbwaiter.devices.ledger.seats import adopt
from dumbwaiter.testing import eventually

pytestmark = pytest.mark.anyio

KILLS = 300
PROCESSES = 64


def standing(ledger):
    """Which seats live, which are orphaned; none may be unknown."""
    with ledger.turn() as turn:
        assert turn.unknown == []
        for _, record in turn.living + turn.orphaned:
            assert record.check == 7 * record.count, record
        return [place for place, _ in turn.living], [place for place, _ in turn.orphaned]


def orphans(ledger):
    return standing(ledger)[1]


async def test_a_process_that_is_killed_leaves_an_orphan_at_once(open_ledger, start):
    ledger, process = open_ledger(), start("hold")
    assert process.hear("seat") == 0
    assert standing(ledger) == ([0], [])
    process.tell()
    assert process.hear("wrote") == 2
    process.kill()
    await eventually(lambda: orphans(ledger) == [0], within=1.0, what="the orphan")
    with ledger.turn() as turn:
        assert turn.orphaned == [(0, Holding(process.pid, 2, 14))]
        turn.forget(0)
    assert standing(ledger) == ([], [])
    assert start("hold").hear("seat") == 0


async def test_a_process_that_is_stopped_keeps_its_seat(open_ledger, start):
    ledger, process = open_ledger(), start("hold")
    process.hear("seat")
    os.kill(process.pid, signal.SIGSTOP)
    assert standing(ledger) == ([0], [])


@pytest.mark.parametrize("how", ["continued", "killed"])
async def test_who_is_stopped_in_a_turn_is_named_and_the_others_go_on_after_it(open_ledger, start, how):
    hasty, patient = open_ledger(patience=0.2), open_ledger()
    process = start("stop")
    process.hear("inside")
    await eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, what="the stop")
    with pytest.raises(LedgerBusyError, match=rf"by process {process.pid}, which is stopped; continue .*kill -CONT"):
        hasty.turn().__enter__()
    with pytest.raises(LedgerBusyError):
        await hasty.turn().__aenter__()
    waiting = asyncio.create_task(patient.turn().__aenter__())
    await asyncio.sleep(0)
    if how == "continued":
        os.kill(process.pid, signal.SIGCONT)
        process.hear("left")
    else:
        process.kill()
    turn = await waiting
    assert turn.unknown == []
    turn.__exit__(None, None, None)
    assert standing(hasty) == ([], [])


async def test_a_forked_child_does_not_keep_the_seat_of_its_parent(open_ledger, start):
    ledger, process = open_ledger(), start("fork")
    process.hear("seat")
    child = process.hear("child")
    process.kill()
    await eventually(lambda: orphans(ledger) == [0], within=1.0, what="the orphan")
    os.kill(child, 0)  # it lives


async def test_a_child_that_inherited_the_seat_keeps_it_and_its_own_children_do_not(open_ledger, start):
    ledger, process = open_ledger(), start("bequeath")
    process.hear("seat")
    child, grandchild = process.hear("child"), process.hear("child")
    process.kill()
    assert standing(ledger) == ([0], [])
    os.kill(child, signal.SIGKILL)
    await eventually(lambda: orphans(ledger) == [0], within=1.0, what="the orphan")
    os.kill(grandchild, 0)  # it lives


async def test_who_is_killed_in_a_turn_ends_it_although_a_child_keeps_the_seat(open_ledger, start):
    process = start("bequeath", "inside")
    process.hear("seat")
    process.hear("child")
    process.hear("child")
    process.hear("inside")
    process.kill()
    assert standing(open_ledger(patience=1.0)) == ([0], [])


@pytest.fixture
def namespace():
    """The command that runs another one in a PID namespace of its own."""
    unshare = ("unshare", "--pid", "--mount-proc", "--fork", "--kill-child")
    is_there = shutil.which("unshare") is not None
    if not is_there or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("RULE NOT CHECKED: this user may make no PID namespace")
    return unshare


async def test_a_seat_is_seen_across_process_namespaces(open_ledger, start, namespace):
    ledger, process = open_ledger(), start("hold", wrap=namespace)
    assert process.hear("seat") == 0
    with ledger.turn() as turn:
        assert turn.living == [(0, Holding(1, 1, 7))]  # process 1 of its own namespace
    process.kill()
    await eventually(lambda: orphans(ledger) == [0], within=1.0, what="the orphan")


async def test_who_has_a_turn_in_another_process_namespace_is_not_named(open_ledger, start, namespace):
    with open_ledger().turn():
        process = start("hurry", wrap=namespace)
        said = process.process.stdout.readline()
    assert "by a process that cannot be named from here; continue that process (kill -CONT) or end it; `fuser" in said


async def test_no_kill_tears_a_record_nor_leaves_the_ledger_locked(open_ledger, start, ledger_file):
    ledger, nursery = open_ledger(patience=10.0), start("nursery", "churn")
    chance = random.Random(1)

    def born():
        nursery.tell()
        return nursery.hear("child")

    running = [born() for _ in range(3)]
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.0, 0.01))  # noqa: ASYNC251 - the moment of the kill
        os.kill(running.pop(0), signal.SIGKILL)
        running.append(born())
        standing(ledger)
    for pid in running:
        os.kill(pid, signal.SIGKILL)

    def all_are_dead():
        with ledger.turn() as turn:
            for place, _ in turn.orphaned:
                turn.forget(place)
            return not turn.living and not turn.orphaned and not turn.unknown

    await eventually(all_are_dead, within=1.0, what="the end of all seats")
    assert not ledger_file.with_name("wrong").exists(), ledger_file.with_name("wrong").read_text()
    assert len(ledger_file.read_bytes()) < 12 * 1024, "seats of the dead were not used again"


async def test_many_processes_at_once_make_one_ledger_and_take_turns(open_ledger, start, ledger_file):
    nursery = start("nursery", "add")
    for _ in range(PROCESSES):
        nursery.tell()
    children = [nursery.hear("child") for _ in range(PROCESSES)]
    await eventually(ledger_file.exists, what="the ledger")
    ledger = open_ledger()

    def all_are_done():
        with ledger.turn() as turn:
            assert turn.unknown == turn.orphaned == []
            return [record.count for _, record in turn.living] == [50] * PROCESSES and turn.living

    done = await eventually(all_are_done, within=50.0, what="the end of all turns")
    assert sorted(record.owner for _, record in done) == sorted(children)
    assert [place for place, _ in done] == list(range(PROCESSES))
    assert ledger_file.with_name("total").read_text() == str(50 * PROCESSES)
    assert not [path for path in ledger_file.parent.iterdir() if path.name.endswith(".new")]


def test_a_descriptor_that_was_not_inherited_cannot_be_adopted():
    with pytest.raises(OSError, match="Bad file descriptor"):
        adopt(1_000_000)


def test_an_adopted_seat_is_let_go_when_it_is_closed(open_ledger):
    ledger = open_ledger()
    with ledger.turn() as turn:
        kept = adopt(os.dup(turn.take_seat(Holding(count=1, check=7)).fileno()))
    ledger.seat.close()
    other = open_ledger()
    assert standing(other) == ([0], [])
    kept.close()
    assert standing(other) == ([], [0])
