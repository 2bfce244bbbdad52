"""A consumer hands back at once what a killed one of its machine held, and touches nothing of a living one."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from holder import ClaimsEach
from msgspec.structs import replace

from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.brokers.sqlite import SqliteBroker
from dumbwaiter.errors import BrokerUnavailableError
from dumbwaiter.message import Message
from dumbwaiter.takeover import taking_over
from dumbwaiter.takeover.recording import RecordingBroker, boot_clock_ahead

pytestmark = pytest.mark.anyio

QUEUE = "queue"
LONG = 60.0
AT_ONCE = 5.0
"""Seconds; far less than a lock."""


class Machine:
    """A database, a folder for slots, and processes that hold messages."""

    def __init__(self, folder: Path, how: list[str]) -> None:
        self.how = how
        self.url = f"sqlite://{folder}/queue.db"
        self.slots = folder / "slots"
        self.processes: list[subprocess.Popen[str]] = []

    def holder(self, count: int, *, lock_duration: float = LONG, queue: str = QUEUE) -> subprocess.Popen[str]:
        arguments = [self.url, str(self.slots), queue, str(lock_duration), str(count), *self.how]
        script = str(Path(__file__).with_name("holder.py"))
        process = subprocess.Popen([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        return process

    def broker(self, lock_duration: float = LONG) -> SqliteBroker:
        adapter = ClaimsEach if self.how else SqliteBroker
        return adapter(self.url, lock_duration=lock_duration)

    def kill(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait()

    def slot(self, number: int, queue: str = QUEUE) -> Path:
        (folder,) = self.slots.glob(f"{queue}-*")
        return folder / f"slot-{number}"

    def close(self) -> None:
        for process in self.processes:
            self.kill(process)
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture(params=[[], ["each"]], ids=["one-claim", "each-claimed"])
def machine(request, tmp_path):
    it = Machine(tmp_path, request.param)
    yield it
    it.close()


async def send(broker, count, queue=QUEUE):
    await broker.create_queue(queue)
    messages = [Message() for _ in range(count)]
    await broker.send(queue, messages)
    return {message.id for message in messages}


async def take(broker, count, queue=QUEUE):
    """The ids and counts of so many that come at once."""
    taken = {}
    until = time.monotonic() + AT_ONCE
    while len(taken) < count and time.monotonic() < until:
        some = await broker.receive(queue, max_messages=count, max_wait=0.2)
        taken.update((one.message.id, one.delivery_count) for one in some)
    return taken


async def locked(broker, queue=QUEUE):
    return (await broker.stats(queue)).locked


async def test_what_a_killed_process_held_comes_at_once_to_the_next_with_its_count_raised(machine, caplog):
    caplog.set_level(logging.INFO, "dumbwaiter.takeover")
    async with machine.broker() as opened:
        sent = await send(opened, 3)
        machine.kill(machine.holder(3))
        assert await locked(opened) == 3
        async with taking_over(opened, machine.slots, QUEUE) as broker:
            assert await take(broker, 3) == dict.fromkeys(sent, 2)
    assert "handed back 3 message(s) that a killed process held" in caplog.text


async def test_a_stopped_process_is_not_dead(machine):
    async with machine.broker() as opened:
        await send(opened, 1)
        process = machine.holder(1)
        process.send_signal(signal.SIGSTOP)
        async with taking_over(opened, machine.slots, QUEUE):
            assert await locked(opened) == 1
            assert machine.slot(1).exists()
        machine.kill(process)
        async with taking_over(opened, machine.slots, QUEUE):
            assert await locked(opened) == 0


async def test_a_second_consumer_takes_nothing_back_from_a_living_one(machine):
    async with machine.broker() as opened:
        await send(opened, 2)
        living, dead = machine.holder(1), machine.holder(1)
        machine.kill(dead)
        async with taking_over(opened, machine.slots, QUEUE):
            assert await locked(opened) == 1
        assert living.poll() is None


async def test_a_copy_of_the_folder_takes_nothing_from_a_living_one(machine, caplog, tmp_path):
    """The lock of the kernel's stays with the file, and what was written down in it goes along."""
    async with machine.broker() as opened:
        await send(opened, 1)
        living = machine.holder(1)
        shutil.copytree(machine.slots, tmp_path / "copy")
        async with taking_over(opened, tmp_path / "copy", QUEUE):
            assert await locked(opened) == 1
        assert living.poll() is None
        assert "slot-0 is passed over, and what it names waits for its lock to end: it is a copy" in caplog.text
        machine.kill(living)
        async with taking_over(opened, machine.slots, QUEUE):
            assert await locked(opened) == 0


async def test_a_folder_that_was_moved_is_as_good_as_before(machine):
    async with machine.broker() as opened:
        sent = await send(opened, 1)
        machine.kill(machine.holder(1))
        machine.slots = machine.slots.rename(machine.slots.with_name("moved"))
        async with taking_over(opened, machine.slots, QUEUE) as broker:
            assert await take(broker, 1) == dict.fromkeys(sent, 2)


async def test_several_that_were_killed_are_all_replaced_by_one(machine):
    async with machine.broker() as opened:
        sent = await send(opened, 6)
        for process in [machine.holder(2) for _ in range(3)]:
            machine.kill(process)
        async with taking_over(opened, machine.slots, QUEUE) as broker:
            assert await take(broker, 6) == dict.fromkeys(sent, 2)


async def test_what_is_taken_back_once_is_not_taken_back_again(machine):
    async with machine.broker() as opened, machine.broker() as other:
        await send(opened, 1)
        machine.kill(machine.holder(1))
        async with taking_over(opened, machine.slots, QUEUE):
            pass
        await take(other, 1)
        async with taking_over(opened, machine.slots, QUEUE):
            assert await locked(opened) == 1


async def test_claims_are_struck_out_before_what_they_name_is_handed_back(machine, monkeypatch):
    """Whoever dies just then must not leave claims to what somebody else holds by then: not every product can tell."""
    async with machine.broker() as opened:
        await send(opened, 3)
        for process in [machine.holder(1) for _ in range(3)]:
            machine.kill(process)
        seen = []
        take_back = opened.take_back

        async def look(claims):
            seen.append([machine.slot(number).stat().st_size for number in range(3)])
            return await take_back(claims)

        monkeypatch.setattr(opened, "take_back", look)
        async with taking_over(opened, machine.slots, QUEUE):
            pass
        assert seen == [[0, 0, 0]]


async def test_a_claim_that_ran_out_while_the_machine_was_suspended_takes_nothing_back(tmp_path, monkeypatch):
    """Its clock stood still meanwhile, and that of the broker's server went on."""
    machine = Machine(tmp_path, ["each"])
    try:
        async with machine.broker() as opened:
            await send(opened, 1)
            machine.kill(machine.holder(1))
            slept = LONG + 1.0
            monkeypatch.setattr("dumbwaiter.takeover.boot_clock_ahead", lambda: boot_clock_ahead() + slept)
            async with taking_over(opened, machine.slots, QUEUE):
                assert await locked(opened) == 1
    finally:
        machine.close()


async def test_a_chain_of_killed_ones_counts_each_delivery(machine):
    async with machine.broker() as opened:
        sent = await send(opened, 1)
        for _ in range(3):
            machine.kill(machine.holder(1))
        async with taking_over(opened, machine.slots, QUEUE) as broker:
            assert await take(broker, 1) == dict.fromkeys(sent, 4)


async def test_what_others_hold_since_its_lock_ran_out_is_not_taken_back(machine):
    async with machine.broker() as opened, machine.broker() as other:
        await send(opened, 1)
        process = machine.holder(1, lock_duration=0.3)
        machine.kill(process)
        assert await take(other, 1), "it comes when its lock ends"
        async with taking_over(opened, machine.slots, QUEUE):
            assert await locked(opened) == 1


async def test_queues_and_brokers_have_slots_of_their_own(machine, tmp_path):
    async with machine.broker() as opened, SqliteBroker(f"sqlite://{tmp_path}/other.db") as elsewhere:
        await send(opened, 1)
        await send(elsewhere, 1)
        machine.kill(machine.holder(1))
        async with taking_over(opened, machine.slots, "other"), taking_over(elsewhere, machine.slots, QUEUE):
            assert await locked(opened) == 1
        async with taking_over(opened, machine.slots, QUEUE):
            assert await locked(opened) == 0


async def test_a_password_changes_nothing_and_is_not_told(machine, tmp_path, monkeypatch):
    async with machine.broker() as opened:
        await send(opened, 1)
        folders = set()
        for url in ("redis://host/1?prefix=a", "redis://me:secret@host/1?prefix=a", "redis://host/1?prefix=b"):
            monkeypatch.setattr(opened, "url", url)
            async with taking_over(opened, machine.slots, QUEUE):
                folders |= {path.name for path in machine.slots.iterdir()}
        assert len(folders) == 2


async def test_one_that_leaves_in_good_order_leaves_nothing_to_take_back(machine):
    async with machine.broker() as opened:
        sent = await send(opened, 2)
        async with machine.broker() as leaving, taking_over(leaving, machine.slots, QUEUE) as broker:
            await broker.receive(QUEUE, max_messages=2, max_wait=1.0)
            assert machine.slot(0).stat().st_size > 0
        assert machine.slot(0).stat().st_size == 0
        assert await take(opened, 2) == dict.fromkeys(sent, 1), "handed back as the broker was closed, uncounted"


async def test_one_that_fails_leaves_nothing_to_take_back_either(machine):
    async with machine.broker() as opened:
        await send(opened, 1)

        async def fail() -> None:
            async with taking_over(opened, machine.slots, QUEUE) as broker:
                await broker.receive(QUEUE, max_messages=1, max_wait=1.0)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert machine.slot(0).stat().st_size == 0


@pytest.mark.parametrize("damage", [b"", b"nonsense" * 100, bytes(range(256))], ids=["empty", "nonsense", "binary"])
async def test_a_journal_that_cannot_be_read_is_passed_over_and_replaced(machine, caplog, damage):
    async with machine.broker() as opened:
        await send(opened, 2)
        machine.kill(machine.holder(1))
        machine.slot(0).write_bytes(damage)
        async with taking_over(opened, machine.slots, QUEUE) as broker:
            assert await locked(opened) == 1
            await broker.receive(QUEUE, max_messages=1, max_wait=1.0)
            assert machine.slot(0).stat().st_size > 0
    assert ("is passed over" in caplog.text) == (damage != b"")


async def test_a_journal_of_hostile_claims_stops_nobody(machine, caplog):
    async with machine.broker() as opened:
        await send(opened, 1)
        machine.kill(machine.holder(1))

        async def explode(claims):
            raise ValueError(f"cannot read {claims[0].token}")

        opened._take_back = explode
        async with taking_over(opened, machine.slots, QUEUE) as broker:
            assert isinstance(broker, RecordingBroker)
    assert "what a killed process held waits for its locks to end" in caplog.text


async def test_a_broker_that_is_down_just_then_stops_nobody(machine, caplog):
    async with machine.broker() as opened:
        await send(opened, 1)
        machine.kill(machine.holder(1))

        async def down(claims):
            raise BrokerUnavailableError("down")

        opened._take_back = down
        async with taking_over(opened, machine.slots, QUEUE):
            assert await locked(opened) == 1
    assert "waits for its locks to end: down" in caplog.text


async def test_without_a_folder_that_can_be_written_work_goes_on_and_that_is_said_once(machine, caplog, tmp_path):
    (tmp_path / "file").touch()
    async with machine.broker() as opened:
        sent = await send(opened, 1)
        async with taking_over(opened, tmp_path / "file" / "slots", QUEUE) as broker:
            assert broker is opened
            assert await take(broker, 1) == dict.fromkeys(sent, 1)
    (record,) = [record for record in caplog.records if record.name == "dumbwaiter.takeover"]
    assert "set slots to a folder" in record.getMessage()


@pytest.mark.parametrize("fate", ["freed", "kept"])
async def test_where_nothing_can_be_taken_back_nothing_is_written(machine, fate):
    async with machine.broker() as opened:
        opened.capabilities = replace(opened.capabilities, killed_holder=fate)
        async with taking_over(opened, machine.slots, QUEUE) as broker:
            assert broker is opened
            await send(broker, 1)
            (delivery,) = await broker.receive(QUEUE, max_messages=1, max_wait=1.0)
            assert broker.claim_of(delivery) is None
            assert await broker.take_back([]) == 0
    assert not machine.slots.exists()


async def test_a_broker_of_one_process_needs_no_slots(machine):
    async with MemoryBroker("memory:") as opened, taking_over(opened, machine.slots, QUEUE) as broker:
        assert broker is opened
    assert not machine.slots.exists()
