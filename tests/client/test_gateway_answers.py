"""From responses to answers and errors, and from lines to events: without a server."""

from __future__ import annotations

import contextlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.answers import failure_of, timings_of
from dumbwaiter.client.gateway_answers import answer_in, error_of, failure_in, prediction_of, raw_answer
from dumbwaiter.client.server_events import EventParser, ServerEvent, output_of
from dumbwaiter.errors import GatewayError
from dumbwaiter.message import Failure, Timings

URL = "http://gateway"


def test_a_prediction_object_is_the_answer_that_it_tells_of():
    body = b"""{"id":"7","model":"m","status":"succeeded","output":{"a": 1},"completed_at":"1970-01-01T00:00:09Z",
        "metrics":{"queued_time":0.1,"batched_time":0.2,"predict_time":0.3,"batch_size":5}}"""
    answer = answer_in(prediction_of(URL, httpx.Response(200, content=body)), model="m", tenant="acme")
    assert (answer.body, answer.content_type, answer.correlation_id) == (b'{"a": 1}', "application/json", "7")
    assert (answer.subject, answer.tenant, answer.time) == ("m", "acme", 9.0)
    assert timings_of(answer) == Timings(queued=0.1, batched=0.2, device=0.3, batch_size=5)


@pytest.mark.parametrize("status", ["failed", "canceled"])
def test_a_prediction_object_may_tell_of_a_failure(status):
    body = f'{{"id":"7","status":"{status}","error":{{"code":"c","message":"m","attempts":3}}}}'.encode()
    failure = failure_of(answer_in(prediction_of(URL, httpx.Response(200, content=body)), model=None))
    assert failure == Failure(code="c", message="m", attempts=3)
    body = f'{{"id":"7","status":"{status}"}}'.encode()
    assert failure_of(answer_in(prediction_of(URL, httpx.Response(200, content=body)), model=None)).code == status


def test_a_raw_output_brings_its_id_and_timings_in_headers():
    timing = 'queued;dur=1.000, batched;dur=2.000, predict;dur=3.500, batch;desc="4"'
    headers = {"content-type": "image/png", "server-timing": timing, "x-prediction-id": "7"}
    answer = raw_answer(httpx.Response(200, headers=headers, content=b"png"), id_="mine", model="m")
    assert (answer.body, answer.content_type, answer.correlation_id) == (b"png", "image/png", "7")
    assert timings_of(answer) == Timings(queued=0.001, batched=0.002, device=0.0035, batch_size=4)
    answer = raw_answer(httpx.Response(200, content=b""), id_="mine", model="m")
    assert (answer.content_type, answer.correlation_id) == ("application/octet-stream", "mine")


@given(header=st.text(alphabet='queudbatchprsc;=. ",0123456789', max_size=60))
def test_a_server_timing_of_nonsense_is_no_error(header):
    timings_of(raw_answer(httpx.Response(200, headers={"server-timing": header}), id_="", model=None))


@given(content=st.binary(max_size=80), status=st.sampled_from([200, 404, 409, 429, 500, 502, 503, 504]))
def test_whatever_a_server_says_is_an_answer_or_an_error_of_ours(content, status):
    for kind in ("application/json", "application/problem+json", "text/html"):
        response = httpx.Response(status, content=content, headers={"content-type": kind})
        failure_in(response, id_="", model=None)
        with contextlib.suppress(GatewayError):
            prediction_of(URL, response)
        assert URL in str(error_of(URL, response)) or status == 504


@pytest.mark.parametrize(
    ("headers", "seconds"), [({"retry-after": "7"}, 7.0), ({"retry-after": "soon"}, None), ({}, None)]
)
def test_an_error_says_how_long_to_wait_where_the_gateway_did(headers, seconds):
    assert error_of(URL, httpx.Response(503, headers=headers)).retry_after == seconds


def events_of(text):
    parser = EventParser()
    return [event for line in text.split("\n") if (event := parser.feed(line))]


def test_events_come_with_their_names_data_and_ids():
    text = ": a comment\nretry: 1000\n\nid: 1\nevent: output\ndata: a\ndata:b\n\ndata: c\n\nid: 2\nevent: start\n\n"
    assert events_of(text) == [ServerEvent("output", "a\nb", "1"), ServerEvent("message", "c", "1")]
    assert events_of("id: bad\0id\ndata: x\nunknown: y\nfield\n\n") == [ServerEvent("message", "x", "")]
    assert events_of("data: never ended") == []


@pytest.mark.parametrize(
    ("data", "output"),
    [
        ('"two eggs"', ("text/plain; charset=utf-8", b"two eggs")),
        ('{"a": 1}', ("application/json", b'{"a": 1}')),
        ('"data:image/png;base64,AAH/"', ("image/png", b"\x00\x01\xff")),
        ('"DATA:image/png;base64,AAH%2F"', ("image/png", b"\x00\x01\xff")),
        ('"data:image/png;base64,"', ("image/png", b"")),
        ('"data:;base64,AAH/"', ("application/octet-stream", b"\x00\x01\xff")),
        ('"data:image/png;base64,not that"', ("text/plain; charset=utf-8", b"data:image/png;base64,not that")),
        ('"data:, a text"', ("text/plain; charset=utf-8", b"data:, a text")),
        ("no JSON", ("text/plain; charset=utf-8", b"no JSON")),
    ],
)
def test_an_output_in_an_event_is_text_json_or_bytes(data, output):
    assert output_of(data) == output
