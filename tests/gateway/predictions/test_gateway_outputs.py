"""How answers come back over HTTP, and what Accept changes."""

from __future__ import annotations

import json

import pytest

from dumbwaiter.answers import succeeded
from dumbwaiter.gateway.http.accept import quality
from dumbwaiter.gateway.predictions.outputs import write_answer
from dumbwaiter.message import Message, Timings

TIMINGS = Timings(queued=0.25, batched=0.5, device=0.125, batch_size=3)


def written(body, content_type, accept="*/*"):
    answer = succeeded(Message(id="7"), body=body, content_type=content_type, timings=TIMINGS)
    headers, content = write_answer(answer, id_="7", model="m", accept=accept)
    return dict(headers), content


@pytest.mark.parametrize("content_type", ["application/json", "application/vnd.x+json; v=1"])
def test_json_comes_back_inside_a_prediction(content_type):
    headers, content = written(b'[{"label":"cat"}]', content_type)
    assert headers[b"content-type"] == b"application/json"
    assert int(headers[b"content-length"]) == len(content)
    assert json.loads(content) == {
        "id": "7",
        "model": "m",
        "status": "succeeded",
        "output": [{"label": "cat"}],
        "metrics": {"queued_time": 0.25, "batched_time": 0.5, "predict_time": 0.125, "batch_size": 3},
    }


def test_text_comes_back_as_a_json_string_unless_asked_for():
    text = 'ä "quoted"'
    assert json.loads(written(text.encode(), "text/plain; charset=utf-8")[1])["output"] == text
    headers, content = written(text.encode(), "text/plain; charset=utf-8", accept="text/plain")
    assert (headers[b"content-type"], content) == (b"text/plain; charset=utf-8", text.encode())


def test_text_that_is_not_utf8_comes_back_as_it_is():
    assert written(b"\xff", "text/plain")[1] == b"\xff"


@pytest.mark.parametrize("accept", ["", "*/*", "image/png", "image/*", "image/png, application/json"])
def test_bytes_come_back_as_they_are(accept):
    headers, content = written(b"\x89PNG", "image/png", accept)
    assert (headers[b"content-type"], content) == (b"image/png", b"\x89PNG")


@pytest.mark.parametrize(
    "accept", ["application/json", "application/json, text/plain, */*", "image/png;q=0.1, application/json"]
)
def test_bytes_come_back_as_a_data_url_to_whoever_prefers_json(accept):
    headers, content = written(b"\x89PN", "image/png", accept)
    assert headers[b"content-type"] == b"application/json"
    assert json.loads(content)["output"] == "data:image/png;base64,iVBO"


@pytest.mark.parametrize("content_type", ["application/json", "image/png"])
def test_server_timing_says_where_the_time_went(content_type):
    timing = written(b"1", content_type)[0][b"server-timing"]
    assert timing == b'queued;dur=250.000, batched;dur=500.000, predict;dur=125.000, batch;desc="3"'


@pytest.mark.parametrize(
    ("accept", "weight"),
    [
        ("text/plain", 1.0),
        ("text/*;q=0.5", 0.5),
        ("*/*", 0.0),
        ("text/plain;q=x", 0.0),
        ("a/b, text/plain;q=.2", 0.2),
        ("", 0.0),
    ],
)
def test_quality_of_an_accept_header(accept, weight):
    assert quality(accept, "text/plain") == weight


@pytest.mark.parametrize(
    "content_type", ["image/png", "Image/WebP; a=b", "audio/wav", "video/mp4", "application/x-npy"]
)
def test_what_no_browser_runs_is_shown(content_type):
    assert b"content-disposition" not in written(b"\xff", content_type)[0]


@pytest.mark.parametrize(
    "content_type",
    [
        "text/html",
        "image/svg+xml",
        "application/pdf",
        "text/vbscript",
        "x/y",
        "image/png,text/html",
        "video/mp4, text/html",
    ],
)
def test_all_else_is_saved_and_runs_nothing(content_type):
    headers, _ = written(b"\xff", content_type, accept=content_type)
    assert headers[b"content-disposition"] == b"attachment"
    assert headers[b"content-security-policy"].startswith(b"sandbox")
