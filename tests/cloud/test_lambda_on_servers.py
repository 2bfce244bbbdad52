"""The handler over brokers with servers: what it leaves behind there, and connections that do not outlast a freeze."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from cloud_running import Cloud, Shop, text_of
from lambda_event_payloads import JSON, PREDICT, http_api

from dumbwaiter.testing.servers import SERVERS, LocalServer, SqsServer

# Servers and processes start first.
pytestmark = pytest.mark.timeout(180)

Place = tuple[LocalServer, Shop, Cloud]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Place, None, None]:
    server = SERVERS[request.param](tmp_path / "server")
    server.start()
    variables = {"DUMBWAITER_BROKER": server.url, **getattr(server, "client_environment", {})}
    try:
        (tmp_path / "shop").mkdir()
        shop = Shop(tmp_path / "shop", **variables)
        try:
            shop.wait_ready()
            cloud = Cloud(shop.folder, "lambda_runtime.py", **variables)
            yield server, shop, cloud
            assert cloud.close() == 0, cloud.said()
        finally:
            shop.close()
    finally:
        server.stop()


def shouted(shop: Shop, cloud: Cloud, text: str, **headers: str) -> Any:
    body = json.dumps({"input": text})
    answer = cloud.invoke(http_api(shop, "POST", PREDICT, body, content_type=JSON, **headers))
    assert answer["statusCode"] in {200, 202}, (answer, cloud.said())
    return json.loads(text_of(answer))


@pytest.mark.parametrize("place", ["sqs"], indirect=True)
def test_calls_by_sqs_leave_no_queue_behind(place: Place) -> None:
    import boto3

    server, shop, cloud = place
    assert isinstance(server, SqsServer)
    credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-central-1"}
    queues = boto3.client("sqs", endpoint_url=server.endpoint, **credentials)
    before = set(queues.list_queues()["QueueUrls"])
    assert [shouted(shop, cloud, text)["output"] for text in ("one", "two")] == ["ONE", "TWO"]
    assert set(queues.list_queues()["QueueUrls"]) == before
    id_ = shouted(shop, cloud, "three", prefer="respond-async")["id"]
    answer = cloud.invoke(http_api(shop, "GET", f"/v1/predictions/{id_}", prefer="wait=20"))
    assert json.loads(text_of(answer))["output"] == "THREE"


@pytest.mark.parametrize("place", ["redis", "rabbitmq"], indirect=True)
def test_a_broker_that_was_restarted_while_the_function_was_frozen_is_no_trouble(place: Place) -> None:
    server, shop, cloud = place
    assert shouted(shop, cloud, "before")["output"] == "BEFORE"
    os.kill(cloud.process.pid, signal.SIGSTOP)
    server.stop()
    server.start()
    os.kill(cloud.process.pid, signal.SIGCONT)
    for text in ("after", "and on"):
        assert shouted(shop, cloud, text)["output"] == text.upper()
