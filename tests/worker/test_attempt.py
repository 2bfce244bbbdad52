"""A batch in which somebody follows: who is told of its start, who hears its chunks and prints, who can end it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dumbwaiter.errors import PermanentError
from dumbwaiter.worker.attempt import Attempt
from dumbwaiter.worker.execution import run_batch
from dumbwaiter.worker.interrupting import Canceled, Interrupter
from dumbwaiter.worker.pipe import Item, Progress
from dumbwaiter.worker.reporting import Reporter


class Scripted:
    """A model whose predict() is given as a function."""

    max_batch = 8
    cheap_decode = True

    def __init__(self, predict: Callable[..., list[Any]]) -> None:
        self._predict = predict

    def predict(self, inputs: Sequence[Any], on_chunk: Callable[[Any], None] | None = None) -> list[Any]:
        return self._predict(inputs, on_chunk)

    def encode(self, output: Any) -> tuple[str, bytes]:
        if output == "unspeakable":
            raise PermanentError("there are no words for it")
        return "text/plain", str(output).encode()


class Desk:
    def __init__(self) -> None:
        self.said: list[tuple[int, str, bytes]] = []
        self.interrupter = Interrupter()
        self.reporter = Reporter(self.send, self.interrupter)

    def send(self, progress: Progress, bodies: Sequence[bytes]) -> None:
        for report, body in zip(progress.reports, bodies or [b""] * len(progress.reports), strict=True):
            self.said.append((report.slot, report.event, body))

    def run(self, predict: Callable[..., list[Any]], *reports: bool) -> list[Any]:
        """A batch of inputs "0", "1" ... in the slots 0, 1 ..."""
        items = [Item(slot, None, 1, None, 0.0, alone=False, reports=one) for slot, one in enumerate(reports)]
        attempt = Attempt(Scripted(predict), items, self.interrupter, self.reporter)
        return run_batch(attempt, [str(slot) for slot in range(len(reports))], attempt.starting)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def echo(inputs: Sequence[Any], _: Any) -> list[Any]:
    return list(inputs)


def test_those_that_are_followed_hear_once_that_they_start(desk: Desk) -> None:
    def together_never(inputs: Sequence[Any], _: Any) -> list[Any]:
        if len(inputs) > 1:
            raise ValueError("not together")
        return list(inputs)

    assert desk.run(together_never, True, False, True) == ["0", "1", "2"]
    assert [(slot, event) for slot, event, _ in desk.said] == [(0, "start"), (2, "start")]


def test_a_member_that_cannot_be_cancelled_keeps_its_batch_running(desk: Desk) -> None:
    desk.interrupter.cancel([0])
    assert desk.run(echo, True, False) == ["0", "1"]


def test_a_batch_of_cancelled_ones_is_not_even_called(desk: Desk) -> None:
    desk.interrupter.cancel([0, 1])
    outputs = desk.run(lambda *_: pytest.fail("it was called"), True, True)
    assert [type(output) for output in outputs] == [Canceled, Canceled]


def test_in_a_batch_that_is_run_again_one_by_one_the_cancelled_are_skipped(desk: Desk) -> None:
    def together_never(inputs: Sequence[Any], _: Any) -> list[Any]:
        assert list(inputs) != ["1"]
        if len(inputs) > 1:
            raise ValueError("not together")
        return list(inputs)

    desk.interrupter.cancel([1])
    first, second, third = desk.run(together_never, True, True, True)
    assert (first, third) == ("0", "2")
    assert isinstance(second, Canceled)


def test_chunks_are_heard_by_an_input_alone_and_one_without_an_encoding_is_passed_over(desk: Desk, caplog) -> None:
    def stream(inputs: Sequence[Any], on_chunk: Callable[[Any], None]) -> list[Any]:
        for chunk in ("a", "unspeakable", "b"):
            on_chunk(chunk)
        return ["ab"]

    assert desk.run(stream, True) == ["ab"]
    assert desk.said[1:] == [(0, "output", b"a"), (0, "output", b"b")]
    assert "no words" in caplog.text


def test_what_is_printed_is_heard_for_an_input_alone_and_never_for_a_batch(desk: Desk) -> None:
    def chatty(inputs: Sequence[Any], _: Any) -> list[Any]:
        desk.reporter.hear("cooking\n")
        return list(inputs)

    desk.run(chatty, True, True)
    assert [event for _, event, _ in desk.said] == ["start", "start"]
    desk.run(chatty, True)
    assert desk.said[-1] == (0, "log", b"cooking\n")
    desk.reporter.hear("between two inputs\n")
    assert desk.said[-1] == (0, "log", b"cooking\n")
