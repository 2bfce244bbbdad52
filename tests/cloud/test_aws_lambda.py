"""The real handler with events as API Gateway, function URLs and load balancers send them, and a real worker."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from cloud_running import Cloud, Shop, text_of
from lambda_event_payloads import JSON, PREDICT, function_url, http_api, load_balancer, rest_api

from dumbwaiter.cloud.backend import Backend
from dumbwaiter.cloud.lambda_events import MOST_NBYTES, MOST_NBYTES_BALANCED, nbytes_of, seconds_left
from dumbwaiter.config import load_settings

# Servers and processes start first.
pytestmark = pytest.mark.timeout(180)

Start = Callable[..., Cloud]


@pytest.fixture
def start(shop: Shop) -> Generator[Start, None, None]:
    clouds: list[Cloud] = []

    def started(folder: Path = shop.folder, **variables: str) -> Cloud:
        clouds.append(Cloud(folder, "lambda_runtime.py", **variables))
        return clouds[-1]

    yield started
    for cloud in clouds:
        assert cloud.close() == 0, cloud.said()


@pytest.fixture(scope="module")
def cloud(shop: Shop) -> Generator[Cloud, None, None]:
    """One whose settings are those of the shop, warm for all tests of this file."""
    cloud = Cloud(shop.folder, "lambda_runtime.py")
    yield cloud
    assert cloud.close() == 0, cloud.said()


def test_a_waiting_call_through_an_http_api_is_answered_by_the_worker(shop: Shop, cloud: Cloud) -> None:
    for text in ("first", "second"):
        body = json.dumps({"input": text}).encode()
        answer = cloud.invoke(http_api(shop, "POST", PREDICT, body, content_type=JSON))
        assert answer["statusCode"] == 200, (answer, cloud.said())
        assert json.loads(text_of(answer))["output"] == text.upper()
        assert answer["headers"]["content-type"] == JSON
        assert "connection" not in answer["headers"]


def test_raw_bytes_come_in_as_base64_and_an_output_that_is_no_text_goes_out_so(shop: Shop, cloud: Cloud) -> None:
    answer = cloud.invoke(http_api(shop, "POST", PREDICT, "äh".encode(), content_type="text/plain"))
    assert json.loads(text_of(answer))["output"] == "ÄH"
    answer = cloud.invoke(http_api(shop, "POST", PREDICT, b"\xff\xfe", content_type="text/plain"))
    assert (answer["statusCode"], json.loads(text_of(answer))["code"]) == (422, "bad-input")


@pytest.mark.parametrize("kind", [rest_api, function_url, load_balancer])
def test_rest_apis_function_urls_and_load_balancers_are_doors_too(shop: Shop, cloud: Cloud, kind: Any) -> None:
    answer = cloud.invoke(kind(shop, "POST", PREDICT, json.dumps({"input": "hello"}), content_type=JSON))
    assert (answer["statusCode"], json.loads(text_of(answer))["output"]) == (200, "HELLO")


def test_the_stage_of_an_http_api_is_no_part_of_the_path(shop: Shop, cloud: Cloud) -> None:
    answer = cloud.invoke(http_api(shop, "GET", "/v2/health/ready", stage="prod"))
    assert json.loads(text_of(answer)) == {"ready": True}
    assert cloud.invoke(http_api(shop, "GET", "/production/v2", stage="prod"))["statusCode"] == 404


def test_what_was_accepted_is_run_while_the_function_is_frozen(shop: Shop, start: Start) -> None:
    cloud = start()
    body = json.dumps({"input": "sleep 1"})
    asked = http_api(shop, "POST", PREDICT, body, content_type=JSON, prefer="respond-async")
    started = time.monotonic()
    accepted = cloud.invoke(asked)
    assert accepted["statusCode"] == 202, (accepted, cloud.said())
    assert time.monotonic() - started < 15.0
    os.kill(cloud.process.pid, signal.SIGSTOP)
    id_ = json.loads(text_of(accepted))["id"]
    other = start()
    answer = other.invoke(http_api(shop, "GET", f"/v1/predictions/{id_}?wait=20", prefer="wait=20"))
    assert json.loads(text_of(answer))["output"] == "SLEEP 1", "an other instance, while the first one is frozen"
    os.kill(cloud.process.pid, signal.SIGCONT)
    answer = cloud.invoke(http_api(shop, "GET", accepted["headers"]["location"]))
    assert json.loads(text_of(answer))["status"] == "succeeded"


def test_a_function_that_is_ended_while_frozen_loses_nothing_that_it_accepted(shop: Shop, start: Start) -> None:
    cloud = Cloud(shop.folder, "lambda_runtime.py")
    body = json.dumps({"input": "sleep 0.5"})
    asked = http_api(shop, "POST", PREDICT, body, content_type=JSON, prefer="respond-async")
    ids = [json.loads(text_of(cloud.invoke(asked)))["id"] for _ in range(3)]
    os.kill(cloud.process.pid, signal.SIGSTOP)
    os.kill(cloud.process.pid, signal.SIGKILL)
    assert cloud.close() == -signal.SIGKILL
    other = start()
    for id_ in ids:
        answer = other.invoke(http_api(shop, "GET", f"/v1/predictions/{id_}", prefer="wait=20"))
        assert json.loads(text_of(answer))["status"] == "succeeded"


def test_no_inbox_is_left_behind_by_an_invocation(shop: Shop, cloud: Cloud) -> None:
    assert cloud.invoke(http_api(shop, "POST", PREDICT, b'{"input": "x"}', content_type=JSON))["statusCode"] == 200
    database = sqlite3.connect(f"file:{shop.folder}/.dumbwaiter/queue.db?mode=ro", uri=True)
    try:
        assert database.execute("SELECT count(*) FROM inbox").fetchone() == (0,), "while the function is frozen"
    finally:
        database.close()


def test_a_caller_hears_that_there_is_no_answer_before_the_function_is_ended(shop: Shop, cloud: Cloud) -> None:
    asked = http_api(shop, "POST", PREDICT, b'{"input": "sleep 3"}', content_type=JSON, prefer="wait=300")
    started = time.monotonic()
    answer = cloud.invoke({**asked, "timeout": 4.0})
    assert (answer["statusCode"], json.loads(text_of(answer))["code"]) == (504, "no-answer-in-time")
    assert time.monotonic() - started < 20.0


def test_who_follows_a_prediction_gets_what_came_in_time_and_goes_on_from_there(shop: Shop, cloud: Cloud) -> None:
    asked = {"content_type": JSON, "accept": "text/event-stream", "prefer": "respond-async"}
    answer = cloud.invoke({**http_api(shop, "POST", PREDICT, b'{"input": "sleep 4"}', **asked), "timeout": 3.5})
    assert answer["statusCode"] == 200, (answer, cloud.said())
    events = text_of(answer)
    assert "event: start" in events
    assert "event: completed" not in events
    id_ = answer["headers"]["x-prediction-id"]
    last = [line.removeprefix("id: ") for line in events.splitlines() if line.startswith("id: ")][-1]
    headers = {"accept": "text/event-stream", "last_event_id": last}
    rest = text_of(cloud.invoke(http_api(shop, "GET", f"/v1/predictions/{id_}/events", **headers)))
    assert "event: start" not in rest
    assert "event: completed" in rest
    assert "SLEEP 4" in rest


def test_an_answer_that_lambda_lets_not_through_is_a_problem_that_says_so(shop: Shop, cloud: Cloud) -> None:
    answer = cloud.invoke(function_url(shop, "POST", PREDICT, '{"input": "say 7000000"}', content_type=JSON))
    told = json.loads(text_of(answer))
    assert (answer["statusCode"], told["code"], told["limit"]) == (502, "answer-too-large", 6 * 1024 * 1024)
    assert answer["headers"]["content-type"] == "application/problem+json"
    answer = cloud.invoke(function_url(shop, "POST", PREDICT, '{"input": "say 5000000"}', content_type=JSON))
    assert len(json.loads(text_of(answer))["output"]) == 5_000_000


def test_a_load_balancer_lets_less_through_and_its_callers_are_told_too(shop: Shop, cloud: Cloud) -> None:
    answer = cloud.invoke(load_balancer(shop, "POST", PREDICT, '{"input": "say 1000000"}', content_type=JSON))
    told = json.loads(text_of(answer))
    assert (answer["statusCode"], told["code"], told["limit"]) == (502, "answer-too-large", 1_000_000)
    assert "load balancer" in told["detail"]
    answer = cloud.invoke(load_balancer(shop, "POST", PREDICT, '{"input": "say 990000"}', content_type=JSON))
    assert len(json.loads(text_of(answer))["output"]) == 990_000


@pytest.mark.parametrize("most", [MOST_NBYTES, MOST_NBYTES_BALANCED])
def test_a_response_whose_json_is_six_times_its_text_is_measured_before_it_leaves(most: int) -> None:
    response = {"statusCode": 200, "body": "\x01" * (most // 6 + 1)}
    assert nbytes_of(response, most, runtime="AWS_Lambda_python3.13") > most


@pytest.mark.parametrize(("runtime", "each"), [("AWS_Lambda_python3.13", 4), ("AWS_Lambda_python3.11", 12), ("", 12)])
def test_what_is_not_ascii_takes_what_the_runtime_makes_of_it(runtime: str, each: int) -> None:
    for text in ("🍲" * 200_000, "🍲" * 100_000):
        response = {"statusCode": 200, "body": text}
        nbytes = nbytes_of(response, 1_000_000, runtime=runtime)
        assert nbytes == pytest.approx(len(text) * each, rel=0.001)


def test_strangers_are_not_let_in(shop: Shop, cloud: Cloud) -> None:
    event = http_api(shop, "POST", PREDICT, b'{"input": "x"}', content_type=JSON)
    del event["headers"]["authorization"]
    answer = cloud.invoke(event)
    assert (answer["statusCode"], json.loads(text_of(answer))["code"]) == (401, "no-api-key")


def test_where_nobody_has_a_key_nobody_gets_in_and_the_log_says_what_to_do(
    shop: Shop, start: Start, tmp_path: Path
) -> None:
    cloud = start(tmp_path)
    answer = cloud.invoke(http_api(shop, "GET", "/v2/health/live"))
    assert (answer["statusCode"], json.loads(text_of(answer))["code"]) == (500, "internal-error")
    assert "dumbwaiter keys create" in cloud.said()


@pytest.mark.parametrize("kind", [http_api, rest_api, function_url, load_balancer])
def test_where_everybody_may_ask_the_log_and_the_refusal_say_that_the_door_must_know_its_name(
    shop: Shop, start: Start, kind: Any
) -> None:
    event = kind(shop, "POST", PREDICT, json.dumps({"input": "hello"}), content_type=JSON)
    host = event["headers"].get("host") or event["headers"]["Host"]
    nameless = start(DUMBWAITER_GATEWAY__AUTH="off")
    answer = nameless.invoke(event)
    assert (answer["statusCode"], json.loads(text_of(answer))["code"]) == (421, "unknown-host")
    assert "DUMBWAITER_GATEWAY__PUBLIC_URL" in nameless.said()
    named = start(DUMBWAITER_GATEWAY__AUTH="off", DUMBWAITER_GATEWAY__PUBLIC_URL=f"https://{host}/prod")
    answer = named.invoke(event)
    assert (answer["statusCode"], json.loads(text_of(answer))["output"]) == (200, "HELLO")
    assert f"everybody who reaches https://{host}/prod" in named.said()


def test_in_the_cloud_a_broker_that_is_a_file_is_refused(shop: Shop, start: Start) -> None:
    cloud = start(AWS_LAMBDA_FUNCTION_NAME="gateway")
    answer = cloud.invoke(http_api(shop, "GET", "/v2/health/live"))
    assert answer["statusCode"] == 500
    assert "DUMBWAITER_BROKER" in cloud.said()
    local = start(AWS_LAMBDA_FUNCTION_NAME="gateway", AWS_SAM_LOCAL="true")
    assert local.invoke(http_api(shop, "GET", "/v2/health/live"))["statusCode"] == 200


def test_a_schedule_removes_what_is_too_old(shop: Shop, start: Start) -> None:
    cloud = start()
    asked = http_api(shop, "POST", PREDICT, b'{"input": "old"}', content_type=JSON, prefer="respond-async")
    id_ = json.loads(text_of(cloud.invoke(asked)))["id"]
    shown = http_api(shop, "GET", f"/v1/predictions/{id_}", prefer="wait=20")
    assert json.loads(text_of(cloud.invoke(shown)))["status"] == "succeeded"
    schedule = {"version": "0", "source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}
    assert cloud.invoke(schedule) == {"removed": 0}
    sweeper = start(DUMBWAITER_GATEWAY__RESULTS_KEPT_FOR="1ms")
    assert sweeper.invoke(schedule)["removed"] > 0
    kept_for_ever = start(DUMBWAITER_GATEWAY__RESULTS_KEPT_FOR="0")
    assert kept_for_ever.invoke(schedule) == {"removed": 0}


def test_a_broker_that_is_down_is_told_and_the_next_call_tries_again(shop: Shop, start: Start, tmp_path: Path) -> None:
    cloud = start(DUMBWAITER_BROKER="redis://127.0.0.1:1", DUMBWAITER_BLOBS=f"file:{shop.folder}/.dumbwaiter/blobs")
    for _ in range(2):
        answer = cloud.invoke({**http_api(shop, "GET", "/v2/health/live"), "timeout": 5.0})
        assert (answer["statusCode"], json.loads(text_of(answer))["code"]) == (503, "broker-unavailable")
        assert answer["headers"]["retry-after"] == "1"


@pytest.mark.parametrize(
    ("request_context", "remaining", "expected"),
    [
        ({"domainName": "id.execute-api.eu-central-1.amazonaws.com"}, 900.0, 28.0),
        ({"domainName": "id.execute-api.eu-central-1.amazonaws.com"}, 10.0, 8.0),
        ({"domainName": "id.lambda-url.eu-central-1.on.aws"}, 900.0, 898.0),
        ({"elb": {"targetGroupArn": "arn"}}, 900.0, 898.0),
    ],
)
def test_nobody_waits_for_longer_than_what_stands_before_the_function(request_context, remaining, expected) -> None:
    class Context:
        def get_remaining_time_in_millis(self) -> int:
            return int(1000 * remaining)

    assert seconds_left(Context(), {"requestContext": request_context}) == expected


@pytest.mark.anyio
async def test_a_connection_that_has_not_outlasted_the_freeze_is_opened_anew(shop: Shop, monkeypatch) -> None:
    monkeypatch.chdir(shop.folder)
    backend = Backend(load_settings(environ={}))
    first = await backend.opened()
    assert await backend.opened() is first
    await first.broker.__aexit__(None, None, None)
    assert await backend.opened() is first, "a moment ago it was well"
    backend._used_at -= 60.0
    second = await backend.opened()
    assert second is not first
    await second.broker.check()
    backend._used_at -= 60.0
    assert await backend.opened() is second, "this one has outlasted it"
    await backend.close()
    await backend.close()
