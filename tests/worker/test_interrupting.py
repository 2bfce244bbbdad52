"""The signal raises in the model's code, and nowhere else."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from dumbwaiter.worker.interrupting import SIGNAL, Interrupted, Interrupter


@pytest.fixture
def interrupter() -> Iterator[Interrupter]:
    before = signal.getsignal(SIGNAL)
    it = Interrupter()
    it.install()
    yield it
    signal.signal(SIGNAL, before)


def beside(act: Callable[[], None]) -> threading.Thread:
    """As the reader thread does it."""
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def raise_signal() -> None:
    signal.raise_signal(SIGNAL)


def test_a_call_whose_inputs_are_all_cancelled_is_interrupted(interrupter: Interrupter) -> None:
    begun, ended = threading.Event(), threading.Event()

    def cancel() -> None:
        begun.wait()
        interrupter.cancel([1])
        interrupter.cancel([2])
        # A signal that comes just before the sleep begins does not end it; so the consumer says it again and again.
        while not ended.wait(0.2):
            interrupter.cancel([2])

    thread = beside(cancel)

    def model() -> None:
        begun.set()
        time.sleep(1000)

    with pytest.raises(Interrupted):
        interrupter.call([1, 2], model)
    ended.set()
    thread.join()


def test_one_input_that_is_still_wanted_keeps_the_call_going(interrupter: Interrupter) -> None:
    def model() -> str:
        beside(lambda: interrupter.cancel([1])).join()
        return "done"

    assert interrupter.call([1, 2], model) == "done"


def test_what_was_cancelled_before_its_call_is_not_called(interrupter: Interrupter) -> None:
    interrupter.cancel([1])
    with pytest.raises(Interrupted):
        interrupter.call([1], pytest.fail)
    interrupter.renew([1])  # the slot has a new owner
    assert interrupter.call([1], str) == ""


def test_a_signal_outside_a_call_does_nothing(interrupter: Interrupter) -> None:
    raise_signal()
    assert interrupter.call([1], str) == ""
    raise_signal()


def test_a_signal_while_a_frame_is_sent_waits_until_it_is_sent(interrupter: Interrupter) -> None:
    sent = []

    def send() -> None:
        beside(lambda: interrupter.cancel([1])).join()
        for part in range(100):
            raise_signal()
            sent.append(part)

    with pytest.raises(Interrupted):
        interrupter.call([1], interrupter.undisturbed, send)
    assert len(sent) == 100


def test_a_model_that_swallows_the_interruption_is_interrupted_again(interrupter: Interrupter) -> None:
    swallowed = []

    def model() -> None:
        try:
            interrupter.cancel([1])
            time.sleep(1000)
        except BaseException as error:
            swallowed.append(error)
        interrupter.cancel([1])
        time.sleep(1000)

    with pytest.raises(Interrupted):
        interrupter.call([1], model)
    assert len(swallowed) == 1


def test_however_late_it_comes_nothing_but_the_call_is_interrupted(interrupter: Interrupter) -> None:
    """A storm of signals over many short calls: each is interrupted or not, and what is around them never is."""
    stop = threading.Event()

    def storm() -> None:
        while not stop.is_set():
            interrupter.cancel([1])
            interrupter.renew([1])

    thread = beside(storm)
    interrupted = 0
    try:
        for _ in range(3000):
            try:
                interrupter.call([1], sum, range(50))
            except Interrupted:
                interrupted += 1
            assert not interrupter._armed
            assert not interrupter._running
            assert interrupter._lock.acquire(timeout=5)
            interrupter._lock.release()
    finally:
        stop.set()
        thread.join()
    assert interrupter.call([2], str) == ""
