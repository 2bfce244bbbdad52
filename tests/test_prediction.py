"""The prediction object: the same answer gives the same bytes, and nothing of the inside is shown."""

from __future__ import annotations

import base64

import msgspec
import pytest

from dumbwaiter.answers import failed, succeeded
from dumbwaiter.message import Failure, Message, Timings
from dumbwaiter.prediction import INLINE_NBYTES, encode_prediction, finished, links_of, output_as_json, unfinished

REQUEST = Message(body=b"x", id="p1")
TIMINGS = Timings(queued=0.25, batched=0.001, device=0.5, batch_size=4)


def answer(body=b"[1,2]", content_type="application/json"):
    return succeeded(REQUEST, body=body, content_type=content_type, timings=TIMINGS)


def shown(prediction):
    return msgspec.json.decode(encode_prediction(prediction))


def test_a_plain_answer_is_id_model_status_output_and_metrics():
    assert shown(finished(answer(), id_="p1", model="cats")) == {
        "id": "p1",
        "model": "cats",
        "status": "succeeded",
        "output": [1, 2],
        "metrics": {"queued_time": 0.25, "batched_time": 0.001, "predict_time": 0.5, "batch_size": 4},
    }


def test_a_kept_one_has_times_and_links_too():
    whole = answer()
    seen = shown(finished(whole, id_="p1", model="cats", created_at=1.5, links=links_of("p1", "https://x.example/")))
    assert seen["created_at"] == "1970-01-01T00:00:01.500000Z"
    assert seen["started_at"] < seen["completed_at"]
    assert seen["urls"] == {
        "get": "https://x.example/v1/predictions/p1",
        "cancel": "https://x.example/v1/predictions/p1/cancel",
        "stream": "https://x.example/v1/predictions/p1/events",
        "output": "https://x.example/v1/predictions/p1/output",
    }


def test_the_same_answer_gives_the_same_bytes():
    whole = answer()
    again = msgspec.convert(msgspec.to_builtins(whole), Message)
    links = links_of("p1")
    first, second = (finished(one, id_="p1", model="m", created_at=2.0, links=links) for one in (whole, again))
    assert encode_prediction(first) == encode_prediction(second)


def test_a_failure_shows_its_first_line_and_no_traceback():
    failure = Failure(code="model-error", message="broke\nTraceback", detail="secret stack", attempts=3)
    text = encode_prediction(finished(failed(REQUEST, failure), id_="p1", model="cats"))
    assert b"secret" not in text
    assert b"Traceback" not in text
    assert msgspec.json.decode(text)["error"] == {"code": "model-error", "message": "broke", "attempts": 3}
    assert "output" not in msgspec.json.decode(text)


def test_a_failure_at_the_first_attempt_says_that_it_was_tried_once():
    failure = Failure(code="bad-input", message="this is no image", attempts=1)
    seen = shown(finished(failed(REQUEST, failure), id_="p1", model="cats"))
    assert seen["error"] == {"code": "bad-input", "message": "this is no image", "attempts": 1}


def test_a_cancelled_one_says_so():
    cancelled = failed(REQUEST, Failure(code="canceled", message="cancelled by its caller"))
    assert shown(finished(cancelled, id_="p1", model="cats"))["status"] == "canceled"


def test_before_its_answer_it_starts_or_is_processed():
    links = links_of("p1")
    waiting = shown(unfinished("p1", "cats", created_at=0.0, started=False, links=links, position=3))
    running = shown(unfinished("p1", "cats", created_at=0.0, started=True, links=links, position=3))
    assert (waiting["status"], waiting["queue_position"]) == ("starting", 3)
    assert running["status"] == "processing"
    assert "queue_position" not in running
    assert shown(unfinished("p1", "c", created_at=0.0, started=False, links=links, position=0))["queue_position"] == 0


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/json", b'{"a":1}', b'{"a":1}'),
        ("application/geo+json; x=y", b"[]", b"[]"),
        ("text/plain; charset=utf-8", "h\u00e9".encode(), '"h\u00e9"'.encode()),
        ("image/png", b"\x89PNG", b'"data:image/png;base64,' + base64.b64encode(b"\x89PNG") + b'"'),
        ("text/json", b"[1]", b"[1]"),
        (None, b"\x00", b'"data:application/octet-stream;base64,AA=="'),
        ("text/plain", b"\xff", b'"data:text/plain;base64,/w=="'),
    ],
)
def test_outputs_stand_in_json(content_type, body, expected):
    assert output_as_json(content_type, body) == expected


def test_a_long_output_of_a_kept_one_is_a_link_that_nobody_takes_for_the_output():
    long = answer(b"x" * (INLINE_NBYTES + 1), "text/plain")
    kept = shown(finished(long, id_="p1", model="m", links=links_of("p1")))
    assert (kept["output"], kept["output_url"]) == (None, "/v1/predictions/p1/output")
    elsewhere = shown(finished(answer(b"", "text/plain"), id_="p1", model="m", links=links_of("p1"), linked=True))
    assert (elsewhere["output"], elsewhere["output_url"]) == (None, "/v1/predictions/p1/output")


def test_only_a_long_output_of_a_kept_one_has_an_url_of_its_own():
    assert "output_url" not in shown(finished(answer(b"null"), id_="p1", model="m", links=links_of("p1")))
    long = answer(b"x" * (INLINE_NBYTES + 1), "application/octet-stream")
    waited_for = shown(finished(long, id_="p1", model="m"))
    assert waited_for["output"].startswith("data:")
    assert "output_url" not in waited_for


def test_a_failure_that_lies_elsewhere_has_no_output_to_link_to():
    failure = failed(Message(id="p1"), Failure(code="model-error", message="no"))
    kept = shown(finished(failure, id_="p1", model="m", links=links_of("p1"), linked=True))
    assert not {"output", "output_url"} & set(kept)


def test_what_nobody_measured_is_not_told_as_zeros():
    failure = failed(Message(id="p1"), Failure(code="canceled", message="no more"))
    told = shown(finished(failure, id_="p1", model="m", created_at=1.0, links=links_of("p1")))
    assert not {"metrics", "started_at"} & set(told)
    measured = failed(Message(id="p1"), Failure(code="canceled", message="no more"), timings=Timings(device=2.0))
    told = shown(finished(measured, id_="p1", model="m", created_at=1.0, links=links_of("p1")))
    assert told["metrics"]["predict_time"] == 2.0
    assert "started_at" in told
