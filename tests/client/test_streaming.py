"""Which outputs of a stream are passed on: each once, in order, and all of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.blobs.events import event_id, new_attempt
from dumbwaiter.client.door import Event
from dumbwaiter.client.streaming import Outputs
from dumbwaiter.errors import BlobError
from dumbwaiter.message import Message

START = Event("start", "application/json", b"{}")


def text(body):
    return Event("output", "text/plain; charset=utf-8", body)


def answer(body, content_type="application/json"):
    return Message(body=body, content_type=content_type, correlation_id="7")


@given(attempts=st.lists(st.integers(0, 5), max_size=4), total=st.integers(0, 5))
def test_however_often_workers_begin_anew_each_output_is_passed_on_once(attempts, total):
    outputs, taken = Outputs(), []
    for told in [*(min(count, total) for count in attempts), total]:
        events = [START, *(text(b"%d" % number) for number in range(told))]
        taken += [event.body for event in events if outputs.take(event)]
    assert taken == [b"%d" % number for number in range(total)]


def test_logs_and_unknown_events_are_no_outputs():
    outputs = Outputs()
    assert not any(outputs.take(Event(kind, "application/json", b"1")) for kind in ("start", "log", "message"))


def test_without_any_output_the_answer_is_the_one():
    outputs = Outputs()
    outputs.take(START)
    assert outputs.rest(answer(b"[1,2]")) == [Event("output", "application/json", b"[1,2]")]
    assert outputs.rest(answer(b"png", "image/png")) == [Event("output", "image/png", b"png")]


@pytest.mark.parametrize(
    ("body", "rest"),
    [
        (b'["a"]', []),
        (b'["a","b",1]', [text(b"b"), Event("output", "application/json", b"1")]),
        (b'"ab"', []),
        (b"no JSON", []),
    ],
)
def test_what_the_events_did_not_tell_comes_from_the_answer(body, rest):
    outputs = Outputs()
    assert outputs.take(text(b"a"))
    assert outputs.rest(answer(body)) == rest


def test_bytes_that_the_events_did_not_tell_are_an_error():
    outputs = Outputs()
    assert outputs.take(Event("output", "image/png", b"png"))
    assert outputs.rest(answer(b'["cG5n"]')) == []
    with pytest.raises(BlobError, match="2 outputs of the stream 7 did not get into the blob store in time"):
        outputs.rest(answer(b'["cG5n","cG5n","cG5n"]'))


def told(attempt, *numbered):
    """Outputs of an attempt, each with its number; the first event of an attempt is its start."""
    started = [Event("start", "application/json", b"{}", event_id(attempt, 1))]
    return [*started, *(Event("output", "text/plain", body, event_id(attempt, number)) for number, body in numbered)]


FIRST, SECOND = new_attempt(1, 1.0), new_attempt(2, 2.0)


def test_behind_an_event_that_was_lost_only_the_answer_tells_what_came():
    outputs = Outputs()
    events = told(FIRST, (2, b"A"), (3, b"B"), (5, b"D"), (6, b"E"))
    assert [event.body for event in events if outputs.take(event)] == [b"A", b"B"]
    assert [event.body for event in outputs.rest(answer(b'["A","B","C","D","E"]'))] == [b"C", b"D", b"E"]


def test_an_attempt_that_begins_anew_fills_the_hole():
    outputs = Outputs()
    events = [*told(FIRST, (2, b"A"), (4, b"C")), *told(SECOND, (2, b"A"), (3, b"B"), (4, b"C"))]
    assert [event.body for event in events if outputs.take(event)] == [b"A", b"B", b"C"]


def test_an_attempt_whose_start_was_lost_tells_nothing():
    outputs = Outputs()
    events = [*told(FIRST, (2, b"A")), *told(SECOND, (3, b"B"), (4, b"C"))[1:]]
    assert [event.body for event in events if outputs.take(event)] == [b"A"]
    assert not Outputs().take(told(FIRST, (3, b"B"))[1])


def test_bytes_behind_a_hole_are_an_error():
    outputs = Outputs()
    for event in told(FIRST, (2, b"png"), (4, b"png")):
        outputs.take(event._replace(content_type="image/png"))
    with pytest.raises(BlobError, match="2 outputs of the stream 7"):
        outputs.rest(answer(b'["cG5n","cG5n","cG5n"]'))
