"""An orchestration of Azure Durable Functions hears of the answer as an event, at the reply URL that it gave."""

from __future__ import annotations

import base64
import json
import logging

import pytest
from test_courier import a_request, answered, empty, now_again, the_dead_letter

from dumbwaiter.courier.durable_functions import is_raise_event
from dumbwaiter.message import Failure
from dumbwaiter.testing import eventually
from http_servers import response, serving

pytestmark = pytest.mark.anyio

CODE = "l5Y7dHqk-SECRET_w%2fb%3d%3d"
EVENT = f"/runtime/webhooks/durabletask/instances/6b2f/raiseEvent/Answered?taskHub=Hub&connection=Storage&code={CODE}"


class Orchestration:
    """Takes events as the extension does: JSON alone, and with the system key. *events* are those that it has seen."""

    def __init__(self, status=202):
        self.events = []
        self.status = status

    async def answer(self, asked, writer):
        if (asked.method, asked.path) != ("POST", EVENT):
            writer.write(response(404))
        elif asked.headers.get("content-type", "").partition(";")[0] != "application/json":
            writer.write(response(400, b'{"Message": "Only application/json request content is supported"}'))
        else:
            self.events.append(json.loads(asked.body))
            writer.write(response(self.status))


@pytest.mark.parametrize(
    ("body", "content_type", "event"),
    [
        (b'{"label": "cat"}', "application/json", {"label": "cat"}),
        ("Kätzchen".encode(), "text/plain; charset=utf-8", "Kätzchen"),
        (b"\x89PNG", "image/png", "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()),
        (b"x" * 5000, "text/plain", "x" * 5000),
    ],
    ids=["json", "text", "picture", "long"],
)
async def test_an_output_of_any_kind_is_an_event(broker, store, courier, body, content_type, event):
    orchestration = Orchestration()
    async with serving(orchestration.answer) as server:
        courier()
        request = a_request(server.url(EVENT), style="reply")
        await answered(broker, store, request, body=body, content_type=content_type)
        await eventually(lambda: empty(broker))
    assert orchestration.events == [event]


async def test_a_failure_is_an_event_too(broker, store, courier):
    orchestration = Orchestration()
    async with serving(orchestration.answer) as server:
        courier()
        failure = Failure(code="model-error", message="too hot", detail="Traceback", attempts=3)
        await answered(broker, store, a_request(server.url(EVENT), style="reply"), failure=failure)
        await eventually(lambda: empty(broker))
    assert orchestration.events == [{"code": "model-error", "message": "too hot", "detail": "", "attempts": 3}]


@pytest.mark.parametrize("status", [410, 500, 302])
async def test_the_system_key_is_neither_logged_nor_told_of_a_dead_letter(
    broker, store, courier, monkeypatch, caplog, status
):
    now_again(monkeypatch)
    with caplog.at_level(logging.DEBUG):
        async with serving(Orchestration(status).answer) as server:
            courier()
            await answered(broker, store, a_request(server.url(EVENT), style="reply"))
            letter = await the_dead_letter(broker)
    assert str(status) in letter.detail
    assert "SECRET" not in letter.detail
    assert "dead-lettered" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"https://app.azurewebsites.net{EVENT}", True),
        ("https://app.azurewebsites.net/prefix/runtime/webhooks/DurableTask/instances/1/raiseEvent/Done", True),
        ("https://app.example/admin/extensions/DurableTaskExtension/instances/1/raiseEvent/Done?code=x", True),
        ("https://app.azurewebsites.net/runtime/webhooks/durabletask/instances/1/terminate?reason=x", False),
        ("https://app.example/hook?next=/runtime/webhooks/durabletask/instances/1/raiseEvent/Done", False),
        ("https://app.example/hook", False),
    ],
)
def test_it_is_known_by_its_path(url, expected):
    assert is_raise_event(url) is expected
