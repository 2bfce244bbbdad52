"""The intake: one thread decodes ahead, the others help a hungry device; what has not started goes back at once."""

from __future__ import annotations

import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from dumbwaiter.errors import BadInputError
from dumbwaiter.testing import eventually
from dumbwaiter.worker.intake import Intake
from dumbwaiter.worker.interrupting import Interrupted, Interrupter
from dumbwaiter.worker.pipe import Cancel, Drain, Drop, Item, Move, Predict, RunnerEnd, frame
from dumbwaiter.worker.recorder import FlightRecorder

pytestmark = pytest.mark.anyio


BODIES = [b"soup", b"salad", b"pie", b"cake", b"bad"]


class Slow:
    """A model whose decoding takes as long as the test wants."""

    cheap_decode = False
    max_batch = 4

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self._gates: defaultdict[bytes, threading.Event] = defaultdict(threading.Event)

    def finish(self, *bodies: bytes) -> None:
        for body in bodies:
            self._gates[body].set()

    def decode(self, content_type: str | None, body: memoryview) -> Any:
        self.begun.append(bytes(body))
        self._gates[bytes(body)].wait()
        if body == b"bad":
            raise BadInputError("not to my taste")
        return bytes(body)


class Desk:
    """An intake, the consumer's end of its pipe, and what it reported."""

    def __init__(self, model: Any, threads: int) -> None:
        self.model = model
        self._ours, theirs = socket.socketpair()
        self.returned: list[int] = []
        self.bad: list[int] = []
        self.recorder = FlightRecorder.create()
        self.interrupter = Interrupter()
        self.intake = Intake(
            RunnerEnd(theirs),
            model,
            self.recorder,
            threads=threads,
            on_bad_input=lambda item, _: self.bad.append(item.slot),
            on_returned=self.returned.extend,
            interrupter=self.interrupter,
        )
        self.intake.start()

    def send(self, message: Predict | Drop | Drain | Cancel | Move, *bodies: bytes) -> None:
        self._ours.sendall(b"".join(bytes(part) for part in frame(message, bodies)))

    def predict(self, **bodies: bytes) -> None:
        """Inputs by slot: predict(s1=b"soup")."""
        slots = [int(name[1:]) for name in bodies]
        items = [
            Item(slot, None, len(body), None, 0.0, alone=False)
            for slot, body in zip(slots, bodies.values(), strict=True)
        ]
        self.send(Predict(items), *bodies.values())

    def ready(self) -> list[int]:
        with self.intake.changed:
            return [one.item.slot for one in self.intake.ready]

    def close(self) -> None:
        self._ours.close()
        self.model.finish(*(bytes(body) for body in self.model.begun), *BODIES)


@pytest.fixture
def desk() -> Iterator[Desk]:
    it = Desk(Slow(), threads=2)
    yield it
    it.close()


async def test_while_the_device_waits_all_threads_decode(desk: Desk) -> None:
    desk.predict(s1=b"soup", s2=b"salad", s3=b"pie")
    await eventually(lambda: len(desk.model.begun) == 2)
    assert desk.intake.decoding == 3


async def test_while_the_device_has_inputs_one_thread_decodes_ahead(desk: Desk) -> None:
    desk.predict(s1=b"soup", s2=b"salad")
    await eventually(lambda: len(desk.model.begun) == 2)
    desk.model.finish(b"soup", b"salad")
    await eventually(lambda: sorted(desk.ready()) == [1, 2])
    desk.predict(s3=b"pie", s4=b"cake")
    await eventually(lambda: desk.model.begun[2:] == [b"pie"])
    with desk.intake.changed:
        assert desk.model.begun[2:] == [b"pie"], "the second thread took the processor although nobody was waiting"
        desk.intake.take([0, 1])
    await eventually(lambda: desk.model.begun[2:] == [b"pie", b"cake"])


async def test_draining_gives_back_at_once_also_what_was_not_decoded_yet(desk: Desk) -> None:
    desk.predict(s1=b"soup", s2=b"salad", s3=b"pie", s4=b"cake")
    await eventually(lambda: len(desk.model.begun) == 2)
    desk.send(Drain())
    await eventually(lambda: sorted(desk.returned) == [3, 4])
    desk.model.finish(b"soup", b"salad")
    await eventually(lambda: sorted(desk.returned) == [1, 2, 3, 4])
    assert desk.intake.decoding == 0


async def test_dropped_inputs_come_back_and_the_others_stay(desk: Desk) -> None:
    desk.predict(s1=b"soup", s2=b"salad", s3=b"pie", s4=b"cake")
    await eventually(lambda: len(desk.model.begun) == 2)
    desk.send(Drop([1, 3]))
    await eventually(lambda: desk.returned == [3])
    desk.model.finish(b"soup", b"salad", b"cake")
    await eventually(lambda: desk.returned == [3, 1])
    await eventually(lambda: sorted(desk.ready()) == [2, 4])
    assert b"pie" not in desk.model.begun, "it was dropped, so nobody need decode it"


async def test_a_slot_given_to_a_new_input_does_not_inherit_the_drop_of_the_old_one(desk: Desk) -> None:
    desk.predict(s1=b"soup")
    await eventually(lambda: len(desk.model.begun) == 1)
    desk.send(Drop([7]))  # it has answered already: nothing to return
    desk.predict(s7=b"pie")
    desk.model.finish(b"soup", b"pie")
    await eventually(lambda: sorted(desk.ready()) == [1, 7])
    assert desk.returned == []


async def test_cancelled_inputs_come_back_and_one_that_was_taken_already_will_not_be_called(desk: Desk) -> None:
    desk.predict(s1=b"soup", s2=b"salad", s3=b"pie")
    desk.model.finish(b"soup")
    await eventually(lambda: desk.ready() == [1])
    with desk.intake.changed:
        desk.intake.take([0])
    desk.send(Cancel([1, 3]))
    desk.model.finish(b"salad", b"pie")
    await eventually(lambda: desk.returned == [3])
    with pytest.raises(Interrupted):
        desk.interrupter.call([1], pytest.fail)
    desk.predict(s1=b"soup")  # the slot has a new owner
    await eventually(lambda: sorted(desk.ready()) == [1, 2])
    assert desk.interrupter.call([1], str) == ""


async def test_a_bad_input_is_reported_and_the_rest_decoded(desk: Desk) -> None:
    desk.predict(s1=b"bad", s2=b"soup")
    desk.model.finish(b"bad", b"soup")
    await eventually(lambda: desk.ready() == [2] and desk.bad)
    assert desk.bad == [1]
    assert desk.recorder.busy([1, 2]) == []


async def test_inputs_are_taken_by_place_and_the_others_keep_their_order(desk: Desk) -> None:
    desk.model.finish(b"soup")
    for slot in range(5):
        desk.predict(**{f"s{slot}": b"soup"})
        await eventually(lambda count=slot + 1: len(desk.ready()) == count)
    with desk.intake.changed:
        taken = desk.intake.take([1, 3])
    assert [one.item.slot for one in taken] == [1, 3]
    assert desk.ready() == [0, 2, 4]


async def test_orders_wait_in_turn_for_the_main_thread(desk: Desk) -> None:
    desk.send(Move("empty"))
    desk.send(Move("park"))
    await eventually(lambda: list(desk.intake.orders) == ["empty", "park"])


async def test_how_many_may_run_at_once_is_what_was_said_last(desk: Desk) -> None:
    item = Item(1, None, 4, None, 0.0, alone=False)
    assert desk.intake.most is None
    desk.send(Predict([item], most=3), b"soup")
    await eventually(lambda: desk.intake.most == 3)
    desk.send(Predict([item]), b"soup")
    await eventually(lambda: desk.intake.most is None)


async def test_the_end_of_the_pipe_is_told(desk: Desk) -> None:
    desk._ours.close()
    await eventually(lambda: desk.intake.ended)
    assert desk.intake.fault is None
