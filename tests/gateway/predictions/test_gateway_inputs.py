"""What may be in the body of a request."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest

from dumbwaiter.gateway.http.problems import ProblemError
from dumbwaiter.gateway.predictions.inputs import read_input


def read(content_type, body):
    given = read_input(content_type, body)
    return given.content_type, given.body


def refused(content_type, body):
    with pytest.raises(ProblemError) as caught:
        read_input(content_type, body)
    return caught.value.problem


@pytest.mark.parametrize("content_type", ["image/jpeg", "text/plain; charset=utf-8", "application/octet-stream"])
def test_raw_bytes_travel_as_they_are_with_their_type(content_type):
    assert read(content_type, b"\xff\x00") == (content_type, b"\xff\x00")


@pytest.mark.parametrize(
    "content_type", [None, "", "application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded ; x=1"]
)
def test_a_type_that_nobody_gave_is_unknown(content_type):
    assert read(content_type, b"\xff") == (None, b"\xff")


@pytest.mark.parametrize("value", [b'"text"', b"[1,2.5,null]", b'{"a": {"b": []}}', b"null", b"true", b'"https://x/y"'])
def test_a_json_input_travels_as_json(value):
    assert read("Application/JSON; charset=utf-8", b' {"input" : ' + value + b"}") == ("application/json", value)


@pytest.mark.parametrize(
    ("url", "content_type", "payload"),
    [
        ("data:image/png;base64," + base64.b64encode(b"\x89PNG").decode(), "image/png", b"\x89PNG"),
        ("data:image/png;BASE64,iVBO", "image/png", b"\x89PN"),
        ("data:text/plain;charset=utf-8;base64,w6Q%3D", "text/plain;charset=utf-8", "ä".encode()),
        ("data:,a%20b", "text/plain;charset=US-ASCII", b"a b"),
        ("data:;charset=utf-8,a", "text/plain;charset=utf-8", b"a"),
        ("data:;base64,aGk=", None, b"hi"),
        ("DATA:image/png;base64,iVBO", "image/png", b"\x89PN"),
        (r"\u0064at\u0041\u003aimage\/png;base64,iVBO", "image/png", b"\x89PN"),
    ],
)
def test_a_data_url_travels_as_the_bytes_that_it_holds(url, content_type, payload):
    assert read("application/json", f'{{"input": "{url}"}}'.encode()) == (content_type, payload)


@pytest.mark.parametrize(
    "url", ["data:image/png;base64", "data:image/png;base64,", "data:image/png;base64,?!", "data:,"]
)
def test_a_broken_data_url_is_bad_input(url):
    assert refused("application/json", f'{{"input": "{url}"}}'.encode()).status == 422


def test_text_that_only_begins_like_a_data_url_is_text():
    assert read("application/json", b'{"input": "dat"}') == ("application/json", b'"dat"')
    assert read("application/json", b'{"input": ["data:,x"]}') == ("application/json", b'["data:,x"]')


@pytest.mark.parametrize("body", [b"{}", b"[1]", b"3", b'{"input": 1, "webhok": 2}', b'{"inputs": 1}'])
def test_json_of_the_wrong_shape_is_named_as_such(body):
    problem = refused("application/json", body)
    assert (problem.status, problem.code) == (422, "bad-input")
    assert '{"input": ...}' in problem.detail


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"input": NaN}',
        b'{"input": Infinity}',
        b'{"input": 01}',
        b'{"input": 1} 2',
        b'{"input": "\xff"}',
        b"\xff\xfe",
    ],
)
def test_what_is_not_json_is_refused(body):
    assert refused("application/json", body).status == 400


@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"a":', b"}")])
def test_json_nested_too_deep_is_refused_and_brackets_in_text_do_not_count(pair):
    opening, closing = pair
    deep = opening * 2000 + b"1" + closing * 2000
    assert "nested too deeply" in refused("application/json", b'{"input": ' + deep + b"}").detail
    fine = b'"' + b"[{" * 2000 + b'\\"["'
    assert read("application/json", b'{"input": ' + fine + b"}")[1] == fine


@pytest.mark.parametrize(
    "body",
    [
        b"[]" * 201 + b'"' + b'\\"' * 500_000,
        b"[" + b"[]," * 3_000_000 + b"1]",
        b'{"input": "' + b"[" * 10_000_000 + b'"}',
        b'{"input": "' + b'\\"' * 3_000_000 + b'"}',
    ],
    ids=["quotes that never end", "brackets without end", "brackets in a text", "quotes in a text"],
)
@pytest.mark.timeout(30)
def test_no_body_takes_more_time_than_reading_it(body):
    """Each of these took a minute or gigabytes once."""
    with contextlib.suppress(ProblemError):
        read_input("application/json", body)


@pytest.mark.parametrize("spelling", ["application/cloudevents+json", "Application/CloudEvents+JSON ; charset=utf-8"])
def test_nobody_outside_may_write_whole_messages(spelling):
    """Else a caller could choose the id, the reply address and the deadline of somebody else's request."""
    event = b'{"id": "photo-17", "replyto": "an inbox", "data": "forged"}'
    problem = refused(spelling, event)
    assert (problem.status, problem.code) == (415, "unsupported-media-type")
    assert "is for the queue" in problem.detail
    url = f"data:{spelling.replace(' ', '')};base64,{base64.b64encode(event).decode()}"
    assert refused("application/json", json.dumps({"input": url}).encode()).status == 415


def test_many_shallow_lists_are_fine():
    value = b"[" + b"[],{}," * 5000 + b"0]"
    assert read("application/json", b'{"input": ' + value + b"}")[1] == value


@pytest.mark.parametrize("content_type", [None, "application/json", "image/jpeg"])
def test_an_empty_body_is_refused(content_type):
    assert refused(content_type, b"").code == "empty-body"


def test_a_filter_of_any_length_is_refused_before_it_is_read():
    body = b'{"input":1,"webhook_events_filter":[' + b",".join([b'"completed"'] * 1000) + b"]}"
    with pytest.raises(ProblemError) as caught:
        read_input("application/json", body)
    assert (caught.value.problem.status, caught.value.problem.code) == (422, "bad-input")


def test_in_a_large_body_no_member_is_guessed_at():
    small, large = (b'{"input":1,"webhok":"' + b"x" * size + b'"}' for size in (10, 100_000))
    explained = []
    for body in (small, large):
        with pytest.raises(ProblemError) as caught:
            read_input("application/json", body)
        explained.append(caught.value.problem.detail)
    assert "did you mean" in explained[0]
    assert "did you mean" not in explained[1]


@pytest.mark.parametrize("rest", [b'"x": ' + b"[" * 5000 + b"]" * 5000, b'"\xff": 1'])
def test_a_body_with_two_faults_is_refused_for_one_of_them(rest):
    assert refused("application/json", b'{"bad": 1, ' + rest + b"}").status in (400, 422)
