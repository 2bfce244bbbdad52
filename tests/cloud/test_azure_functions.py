"""The real function app, run as the Python worker of Azure Functions runs it, and a real worker of ours."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest
from cloud_running import Cloud, Shop

from dumbwaiter.config import Settings

# Servers and processes start first.
pytestmark = pytest.mark.timeout(180)

PREDICT = "/v1/models/clerk/predictions"


@pytest.fixture(scope="module")
def cloud(shop: Shop) -> Generator[Cloud, None, None]:
    cloud = Cloud(shop.folder, "azure_host.py")
    yield cloud
    assert cloud.close() == 0, cloud.said()


def asked(shop: Shop, method: str, path: str, body: bytes = b"", **headers: str) -> dict[str, Any]:
    """What the host hands to a function with an HTTP trigger."""
    sent = {"authorization": f"Bearer {shop.key}", "host": "app.azurewebsites.net", "content-length": str(len(body))}
    return {
        "method": method,
        "url": f"https://app.azurewebsites.net{path}",
        "headers": {**sent, **{name.replace("_", "-"): value for name, value in headers.items()}},
        "body": base64.b64encode(body).decode(),
    }


def predict(shop: Shop, text: str, **headers: str) -> dict[str, Any]:
    body = json.dumps({"input": text}).encode()
    return asked(shop, "POST", PREDICT, body, content_type="application/json", **headers)


def content(answer: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(answer["body"]))


def test_two_requests_that_come_first_at_once_are_both_answered(shop: Shop) -> None:
    cloud = Cloud(shop.folder, "azure_host.py")
    first, second = cloud.invoke(predict(shop, "one"), predict(shop, "two"))
    assert [first["status"], second["status"]] == [200, 200], cloud.said()
    assert (content(first)["output"], content(second)["output"]) == ("ONE", "TWO")
    assert first["headers"]["content-type"] == "application/json"
    assert cloud.close() == 0, "it does not hang at its end"


def test_many_callers_wait_at_once(shop: Shop, cloud: Cloud) -> None:
    answers = cloud.invoke(*(predict(shop, f"text {number}") for number in range(20)))
    assert [content(answer)["output"] for answer in answers] == [f"TEXT {number}" for number in range(20)]


def test_a_deferred_call_is_accepted_and_looked_up(shop: Shop, cloud: Cloud) -> None:
    accepted = cloud.invoke(predict(shop, "sleep 0.3", prefer="respond-async"))
    assert accepted["status"] == 202
    location = accepted["headers"]["location"]
    shown = content(cloud.invoke(asked(shop, "GET", location, prefer="wait=20")))
    assert (shown["status"], shown["output"]) == ("succeeded", "SLEEP 0.3")


def test_raw_bytes_and_large_answers_pass(shop: Shop, cloud: Cloud) -> None:
    answer = cloud.invoke(asked(shop, "POST", PREDICT, "äh".encode(), content_type="text/plain"))
    assert content(answer)["output"] == "ÄH"
    assert len(content(cloud.invoke(predict(shop, "say 3000000")))["output"]) == 3_000_000


def test_who_follows_gets_all_events_when_they_are_over(shop: Shop, cloud: Cloud) -> None:
    answer = cloud.invoke(predict(shop, "sleep 0.3", prefer="respond-async", accept="text/event-stream"))
    events = base64.b64decode(answer["body"]).decode()
    assert "event: start" in events
    assert "event: completed" in events


def test_problems_and_paths_are_as_at_any_gateway(shop: Shop, cloud: Cloud) -> None:
    answer = cloud.invoke(asked(shop, "GET", "/v1/nothing%20here?x=1"))
    assert (answer["status"], content(answer)["code"]) == (404, "not-found")
    assert "nothing here" in content(answer)["detail"]
    stranger = predict(shop, "x")
    del stranger["headers"]["authorization"]
    assert cloud.invoke(stranger)["status"] == 401


def test_a_gateway_that_cannot_be_opened_is_tried_again_by_the_next_request(shop: Shop, tmp_path: Path) -> None:
    cloud = Cloud(tmp_path, "azure_host.py")
    try:
        answer = cloud.invoke(asked(shop, "GET", "/v2/health/live"))
        assert (answer["status"], content(answer)["code"]) == (500, "internal-error")
        assert "dumbwaiter keys create" in cloud.said()
        (tmp_path / ".dumbwaiter").rename(tmp_path / "without a key")
        (tmp_path / ".dumbwaiter").symlink_to(shop.folder / ".dumbwaiter")
        answer = cloud.invoke(asked(shop, "GET", "/v2/health/live"))
        assert (answer["status"], content(answer)) == (200, {"live": True})
    finally:
        assert cloud.close() == 0


@pytest.mark.anyio
async def test_nothing_is_left_that_its_adapter_would_have_to_end() -> None:
    """It would do so in another event loop, and wait for ever."""
    from dumbwaiter.cloud.azure_functions import AsgiGateway

    before = asyncio.all_tasks()
    adapter = func.AsgiMiddleware(AsgiGateway(Settings()))
    assert await adapter.notify_startup()
    assert await adapter.notify_startup(), "as two first requests have it"
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
