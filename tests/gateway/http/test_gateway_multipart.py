"""Forms: what their parts mean, and what hostile ones may not do."""

from __future__ import annotations

import json

import pytest
from gateway_running import gateway
from problems_seen import problem

from dumbwaiter.blobs.cards import ModelCard, save_card
from dumbwaiter.gateway.http.budget import Budget
from dumbwaiter.gateway.http.multipart import Form
from dumbwaiter.gateway.http.problems import ProblemError
from dumbwaiter.gateway.predictions.forms import FormReader
from dumbwaiter.message import WEBHOOK, WEBHOOK_EVENTS
from dumbwaiter.testing import eventually
from echo_worker import serving

pytestmark = pytest.mark.anyio

TYPE = "multipart/form-data; boundary=b"


def part(name, data, content_type=None, filename=None, *, boundary="b"):
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
    head += f'; filename="{filename}"' if filename is not None else ""
    head += f"\r\nContent-Type: {content_type}" if content_type else ""
    return head.encode() + b"\r\n\r\n" + data + b"\r\n"


END = b"--b--\r\n"


async def pieces(body, size):
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def read(body, *, size=7, content_type=TYPE, threshold=1000, limit=100_000, signature=None):
    streamed = []

    async def stream(data):
        streamed.append(b"".join([chunk async for chunk in data]))
        return "blob:claims/x"

    async def describe():
        return signature or {}

    with Budget(10_000_000).hold() as hold:
        reader = FormReader(hold, limit=limit, upload=1000, describe=describe)
        given = await reader.read(Form(content_type, pieces(body, size)), threshold=threshold, stream=stream)
    return given, streamed


async def refused(body, **how):
    with pytest.raises(ProblemError) as caught:
        await read(body, **how)
    return caught.value.problem


@pytest.mark.parametrize("size", [1, 2, 3, 50, 10_000])
async def test_one_field_named_input_is_the_input_with_its_type(size):
    data = b"\xff\xd8\r\n--b\r-\r\n--\r\n--c" + bytes(range(256))
    given, _ = await read(part("input", data, "image/jpeg", "a.jpg") + END, size=size)
    assert (given.content_type, given.body) == ("image/jpeg", data)


@pytest.mark.parametrize(
    ("content_type", "data", "expected"),
    [
        (None, b"hello", (None, b"hello")),
        ("text/plain; charset=utf-8", b"a", ("text/plain; charset=utf-8", b"a")),
        ("application/json", b' {"a": 1}', ("application/json", b' {"a": 1}')),
    ],
)
async def test_a_field_named_input_need_not_be_a_file(content_type, data, expected):
    given, _ = await read(part("input", data, content_type) + END)
    assert (given.content_type, given.body) == expected


async def test_several_fields_are_arguments_files_as_data_urls_and_json_as_it_is():
    body = (
        part("image", b"\x89PN", "image/png", "a.png")
        + part("text", "ä".encode())
        + part("n", b"3", "application/json")
        + part("empty", b"", None, "")
        + END
    )
    given, _ = await read(body)
    assert given.content_type == "application/json"
    assert json.loads(given.body) == {
        "image": "data:image/png;base64,iVBO",
        "text": "ä",
        "n": 3,
        "empty": "data:application/octet-stream;base64,",
    }


async def test_a_single_field_of_another_name_is_an_argument():
    assert json.loads((await read(part("text", b"x") + END))[0].body) == {"text": "x"}


ADD = {
    "input": {
        "kind": "arguments",
        "schema": {"type": "object", "properties": {"a": {"type": "number"}, "title": {"type": "string"}}},
    }
}
PICTURE = {"input": {"kind": "image", "name": "picture", "schema": {"type": "string"}}}


async def test_a_text_for_a_number_is_that_number_and_for_a_text_stays_one():
    given, _ = await read(part("a", b"40") + part("title", b"2") + END, signature=ADD)
    assert json.loads(given.body) == {"a": 40, "title": "2"}
    given, _ = await read(part("a", b"40") + part("title", b"2") + END)
    assert json.loads(given.body) == {"a": "40", "title": "2"}, "nothing is known of the model"


async def test_a_model_of_one_input_takes_it_by_the_name_of_its_parameter_too():
    given, _ = await read(part("picture", b"\x89PN", "image/png", "a.png") + END, signature=PICTURE)
    assert (given.content_type, given.body) == ("image/png", b"\x89PN")
    given, _ = await read(part("picture", b"https://a.example/b.png") + END, signature=PICTURE)
    assert (given.content_type, given.body) == ("application/json", b'"https://a.example/b.png"')
    root = {"input": {"kind": "json", "name": "x", "schema": {"type": "number"}}}
    given, _ = await read(part("x", b"2") + END, signature=root)
    assert (given.content_type, given.body) == ("application/json", b"2")


@pytest.mark.parametrize(
    ("form", "field", "named"),
    [
        (part("inptu", b"\x89PN", "image/png", "a.png"), "inptu", "named 'input' or 'picture'; did you mean 'input'?"),
        (part("pictrue", b"x"), "pictrue", "named 'input' or 'picture'; did you mean 'picture'?"),
        (
            part("input", b"\x89PN", "image/png", "a.png") + part("webhok", b"https://x.example"),
            "webhok",
            "named 'input' or 'picture'; did you mean 'webhook'?",
        ),
        (part("input", b"\x89PN", "image/png", "a.png") + part("size", b"x"), "size", "named 'input' or 'picture'"),
        (
            part("input", b"\x89PN", "image/png", "a.png") + part("picture", b"\x89PN", "image/png", "a.png"),
            "picture",
            "named 'input' or 'picture'",
        ),
    ],
)
async def test_a_model_of_one_input_takes_no_other_fields_and_says_which_it_takes(form, field, named):
    found = await refused(form + END, signature=PICTURE)
    assert (found.status, found.code) == (422, "bad-input")
    assert found.detail == f"the form has the field {field!r}, and the model takes one field, {named}"


async def test_json_in_a_form_may_be_longer_than_what_is_streamed():
    value = b"[" + b"1," * 5000 + b"1]"
    given, streamed = await read(part("input", value, "application/json") + END, size=500)
    assert (given.body, streamed) == (value, [])


async def test_control_fields_are_no_arguments():
    controls = (
        part("webhook", b"https://x.example/y")
        + part("webhook_events_filter", b"start, completed")
        + part("deadline", b"2030-01-31T12:00:00Z")
        + part("priority", b"-2")
        + part("tenant", b"ann")
    )
    given, _ = await read(part("input", b"x", "a/b", "x") + controls + END)
    assert (given.content_type, given.body) == ("a/b", b"x")
    assert (given.controls.webhook, given.controls.webhook_events) == ("https://x.example/y", ("start", "completed"))
    assert (given.controls.priority, given.controls.tenant) == (-2, "ann")
    assert given.controls.deadline == 1896091200.0


@pytest.mark.parametrize(
    "form",
    [
        part("text", b"a") + part("priority", b"high"),
        part("priority", b"5"),
        part("input", b"a") + part("text", b"a") + part("priority", b"5"),
    ],
)
async def test_a_field_that_may_be_meant_for_the_model_or_for_the_request_is_refused(form):
    schema = {"type": "object", "properties": {"text": {"type": "string"}, "priority": {"type": "string"}}}
    signature = {"input": {"kind": "arguments", "schema": schema}}
    found = await refused(form + END, signature=signature)
    assert (found.status, found.code) == (422, "bad-input")
    assert "in a form the field 'priority' is about the request, and the model has a parameter" in found.detail
    given, _ = await read(part("text", b"a") + part("tenant", b"ann") + END, signature=signature)
    assert (given.body, given.controls.tenant) == (b'{"text":"a"}', "ann")


@pytest.mark.parametrize("size", [1, 100, 5000, 100_000])
async def test_a_large_file_named_input_is_streamed_wherever_it_stands(size):
    data = bytes(range(256)) * 20
    whole = part("priority", b"1") + part("input", data, "a/b", "x") + part("tenant", b"ann") + END
    given, streamed = await read(whole, size=size)
    assert (given.data_ref, given.body, given.content_type) == ("blob:claims/x", b"", "a/b")
    assert streamed == [data]
    assert (given.controls.priority, given.controls.tenant) == (1, "ann")


async def test_a_large_file_goes_alone():
    body = part("input", bytes(2000), "a/b", "x") + part("other", b"1") + END
    assert "goes alone" in (await refused(body)).detail


async def test_the_digest_is_of_what_is_said_not_of_how():
    def form(boundary, data=b"x", name="input", content_type="a/b", filename="f"):
        return (
            part(name, data, content_type, filename, boundary=boundary) + f"--{boundary}--\r\n".encode(),
            f"multipart/form-data; boundary={boundary}",
        )

    async def digest(*form_):
        return (await read(form_[0], content_type=form_[1]))[0].digest

    same = {await digest(*form("b")), await digest(*form("zzzz")), await digest(*form("b", filename="other"))}
    assert len(same) == 1
    others = [form("b", data=b"y"), form("b", name="image"), form("b", content_type="a/c"), form("b", filename=None)]
    assert len(same | {await digest(*other) for other in others}) == 5
    large = {await digest(*form("b", data=bytes(5000))), await digest(*form("c", data=bytes(5000)))}
    assert len(large) == 1
    assert await digest(*form("b", data=bytes(5001))) not in large


HOSTILE = {
    "10,000 parts": (b"".join(part(f"p{n}", b"x") for n in range(10_000)) + END, 413),
    "one name twice": (part("a", b"1") + part("a", b"2") + END, 422),
    "no end": (part("input", b"x" * 50), 400),
    "an end in the middle of a head": (b'--b\r\nContent-Disposition: form-data; name="inp', 400),
    "another boundary": (part("input", b"x", boundary="c") + b"--c--\r\n", 400),
    "no name": (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", 400),
    "no disposition": (b"--b\r\nContent-Type: a/b\r\n\r\nx\r\n--b--\r\n", 400),
    "a head without end": (b"--b\r\nX: " + b"y" * 100_000, 400),
    "100 lines of head": (b"--b\r\n" + b"X: y\r\n" * 100 + b"\r\n\r\n" + END, 400),
    "a name that is not UTF-8": (
        b'--b\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--b--\r\n',
        400,
    ),
    "text that is not UTF-8": (part("a", b"\xff\xfe") + END, 422),
    "JSON that is none": (part("a", b"{", "application/json") + END, 400),
    "JSON that is too deep": (part("input", b"[" * 5000 + b"]" * 5000, "application/json") + END, 400),
    "nothing": (END, 400),
    "only controls": (part("tenant", b"x") + END, 400),
    "an empty input": (part("input", b"", "image/png", "x") + END, 400),
    "garbage": (bytes(range(256)) * 10, 400),
    "a whole message": (part("input", b"{}", "application/cloudevents+json", "x") + END, 415),
    "a large whole message": (part("input", bytes(5000), "application/cloudevents+json", "x") + END, 415),
    "JSON larger than memory": (part("input", b"1" * 200_000, "application/json", "x") + END, 413),
    "more than memory": (part("a", bytes(200_000), "a/b", "x") + END, 413),
    "a priority that is none": (part("input", b"x") + part("priority", b"1" * 5000) + END, 400),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_form_that_is_none_is_refused_with_the_reason(name):
    body, status = HOSTILE[name]
    found = await refused(body, size=1000)
    assert found.status == status, found
    assert found.detail


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "x" * 5000],
)
async def test_a_form_without_a_usable_boundary_is_400(content_type):
    assert (await refused(END, content_type=content_type)).code == "invalid-multipart"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("filling", [b"\r\n", b"\r\n--", b"\r\n--b", b"\r", b"-"])
async def test_data_that_nearly_is_a_boundary_takes_no_more_time_than_other_data(filling):
    data = filling * (1_000_000 // len(filling))
    if filling == b"\r\n--b":
        await refused(part("input", data, "a/b", "x") + END, size=65536)
        return
    _, streamed = await read(part("input", data, "a/b", "x") + END, size=65536)
    assert streamed == [data]


async def test_a_form_reaches_the_model_as_curl_sends_it(broker, store):
    async with serving(broker, store=store) as worker, gateway(broker, store) as running:
        picture = await running.predict(files={"input": ("a.png", b"\x89PNG", "image/png")})
        arguments = await running.predict(data={"a": "x"}, files={"b": ("b.bin", b"12", "a/b")})
        data = {"webhook": "https://example.com/x", "webhook_events_filter": "start"}
        hooked = await running.predict(data=data, files={"input": ("a.png", b"\x89PNG", "image/png")})
    assert (picture.content, picture.headers["content-type"]) == (b"\x89PNG", "image/png")
    assert arguments.json()["output"] == {"a": "x", "b": "data:a/b;base64,MTI="}
    assert hooked.status_code == 200
    extensions = worker.requests[2].extensions
    assert (extensions[WEBHOOK], extensions[WEBHOOK_EVENTS]) == ("https://example.com/x", "start")


async def test_a_form_is_read_by_what_the_model_says_it_takes(broker, store):
    await save_card(store, ModelCard(name="echo", signature=ADD))
    async with serving(broker, store=store), gateway(broker, store) as running:
        # As curl -F a=40 -F title=7 sends it.
        answer = await running.predict(files={"a": (None, "40"), "title": (None, "7")})
        assert answer.json()["output"] == {"a": 40, "title": "7"}
        await save_card(store, ModelCard(name="echo", signature=PICTURE))
        signatures = {"image": ("a.png", b"\x89PNG", "image/png")}

        async def is_refused():
            return (await running.predict(files=signatures)).status_code == 422

        await eventually(is_refused, within=10.0)


async def test_a_large_form_is_streamed_and_leaves_nothing_behind_when_it_is_refused(broker, store):
    async with serving(broker, store=store) as worker, gateway(broker, store) as running:
        body = bytes(3_000_000)
        response = await running.predict(files={"input": ("a", body, "a/b")})
        assert response.content == body
        assert worker.requests[0].data_ref is not None
        broken = part("input", body, "a/b", "x")
        refused_ = await running.predict(content=broken, headers={"content-type": TYPE})
        problem(refused_, 400, "invalid-multipart")
        late = part("input", body, "a/b", "x") + part("other", b"1") + END
        problem(await running.predict(content=late, headers={"content-type": TYPE}), 413, "body-too-large")
        wrong = part("input", body, "a/b", "x") + part("priority", b"99") + END
        problem(await running.predict(content=wrong, headers={"content-type": TYPE}), 400, "invalid-priority")
        assert await store.list("claims/") == []
    assert len(worker.requests) == 1
