"""Server-sent events of kept predictions, read as a browser's EventSource reads them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import psutil
import pytest
from gateway_running import gateway, raw_connection
from problems_seen import problem

from dumbwaiter.answers import failed, succeeded
from dumbwaiter.blobs.events import Event, append, event_id, new_attempt
from dumbwaiter.blobs.results import result_key, save_result
from dumbwaiter.gateway.predictions import events
from dumbwaiter.gateway.predictions.event_text import text_of
from dumbwaiter.message import Failure, Message
from dumbwaiter.policies.polling import Pace
from dumbwaiter.testing import eventually
from echo_worker import TIMINGS, serving

pytestmark = pytest.mark.anyio

STREAM = {"accept": "text/event-stream"}


class Reader:
    """Events of a response as they come; comments and retry hints beside them."""

    def __init__(self, response):
        self.response = response
        self.retry = None
        self.comments = 0
        self._lines = response.aiter_lines()

    async def next(self, within=10.0):
        """Name, id and data of the next event; None at the end of the stream."""
        return await asyncio.wait_for(self._next(), within)

    async def _next(self):
        found = {}
        async for line in self._lines:
            if not line and "data" in found:
                return found["event"], found["id"], json.loads(found["data"])
            name, _, value = line.partition(": ")
            if line.startswith("retry"):
                self.retry = value
            elif line.startswith(":"):
                self.comments += 1
            elif line:
                found[name] = value
        return None

    async def rest(self):
        found = []
        while (event := await self.next()) is not None:
            found.append(event)
        return found


@contextlib.asynccontextmanager
async def following(running, id_, **headers):
    path = f"/v1/predictions/{id_}/events"
    async with running.http.stream("GET", path, headers={**STREAM, **headers}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Reader(response)


class Attempt:
    """A worker's part: what it would write about one request."""

    def __init__(self, store, id_, count=1):
        self._store, self._id = store, id_
        self._name = new_attempt(count, time.time())
        self._next = 0

    async def tell(self, *told):
        written = []
        for event, data, content_type in told:
            written.append(
                Event(id=event_id(self._name, self._next), event=event, data=data, content_type=content_type)
            )
            self._next += 1
        await append(self._store, self._id, written)

    async def output(self, *values):
        await self.tell(*(("output", json.dumps(value).encode(), "application/json") for value in values))

    async def finish(self, body=b"[1,2]"):
        answer = succeeded(Message(id=self._id), body=body, content_type="application/json", timings=TIMINGS)
        await save_result(self._store, self._id, answer, threshold=64 * 1024)


async def deferred(running):
    return (await running.predict(json={"input": 1}, headers={"prefer": "respond-async"})).json()["id"]


@pytest.fixture
async def echo(broker):
    await broker.create_queue("echo")


async def test_events_come_while_they_happen_and_end_with_the_prediction(broker, store, echo):
    async with gateway(broker, store) as running, gateway(broker, store) as other:
        id_ = await deferred(running)
        attempt = Attempt(store, id_)
        async with following(other, id_) as reader:
            await attempt.tell(("start", b"null", "application/json"))
            assert (await reader.next())[0] == "start"
            await attempt.output({"n": 1}, "two")
            await attempt.tell(("log", "loading ä\nof 3".encode(), "text/plain"), ("output", b"\x89PN", "image/png"))
            seen = [await reader.next() for _ in range(4)]
            await attempt.finish()
            last = await reader.next()
            assert await reader.next() is None
    assert [(name, data) for name, _, data in seen] == [
        ("output", {"n": 1}),
        ("output", "two"),
        ("log", "loading ä\nof 3"),
        ("output", "data:image/png;base64,iVBO"),
    ]
    assert [id_ for _, id_, _ in seen] == sorted(id_ for _, id_, _ in seen)
    assert (last[0], last[1], last[2]["status"], last[2]["output"]) == ("completed", "completed", "succeeded", [1, 2])
    assert reader.retry == "1000"


async def test_whoever_comes_back_goes_on_behind_the_event_seen_last(broker, store, echo):
    async with gateway(broker, store) as running:
        id_ = await deferred(running)
        attempt = Attempt(store, id_)
        await attempt.output(*range(5))
        async with following(running, id_) as reader:
            seen = [await reader.next() for _ in range(3)]
        await attempt.output(5)
        await attempt.finish()
        async with following(running, id_, **{"last-event-id": seen[-1][1]}) as reader:
            rest = await reader.rest()
        by_query = await running.http.get(f"/v1/predictions/{id_}/events?last_event_id={seen[-1][1]}")
    assert [data for name, _, data in rest if name == "output"] == [3, 4, 5]
    assert rest[-1][0] == "completed"
    assert by_query.text.count("event: output") == 3


async def test_a_browser_that_comes_back_after_the_end_is_told_not_to(broker, store, echo):
    async with gateway(broker, store) as running:
        id_ = await deferred(running)
        await Attempt(store, id_).finish()
        path = f"/v1/predictions/{id_}/events"
        response = await running.http.get(path, headers={**STREAM, "last-event-id": "completed"})
        assert (response.status_code, response.content) == (204, b"")
        assert (await running.http.head(path)).status_code == 200


@pytest.mark.parametrize(
    "nonsense", ["x", "../../results/1", "zz" * 2000, "\x80\xff", "0" * 13 + "-" + "g" * 8, "0", ";"]
)
async def test_a_last_event_id_that_is_none_gets_everything(broker, store, echo, nonsense):
    async with gateway(broker, store) as running:
        id_ = await deferred(running)
        attempt = Attempt(store, id_)
        await attempt.output("a", "b")
        await attempt.finish()
        headers = [(b"last-event-id", nonsense.encode("latin-1"))]
        response = await running.http.get(f"/v1/predictions/{id_}/events", headers=headers)
    assert response.text.count("event: output") == 2
    assert response.text.count("event: completed") == 1


async def test_what_a_stale_attempt_still_writes_is_passed_over(broker, store, echo):
    async with gateway(broker, store) as running:
        id_ = await deferred(running)
        stale, newest = Attempt(store, id_, 1), Attempt(store, id_, 2)
        await stale.output("old")
        async with following(running, id_) as reader:
            assert (await reader.next())[2] == "old"
            await newest.output("new")
            assert (await reader.next())[2] == "new"
            await stale.output("late")
            await newest.output("newer")
            await newest.finish()
            assert [data for name, _, data in await reader.rest() if name == "output"] == ["newer"]


async def test_failures_and_cancellations_end_a_stream_too(broker, store, echo):
    async with gateway(broker, store) as running:
        ids = [await deferred(running) for _ in range(2)]
        failure = failed(Message(id=ids[0]), Failure(code="model-error", message="it broke\nTraceback"))
        await save_result(store, ids[0], failure, threshold=1000)
        async with following(running, ids[0]) as reader:
            (only,) = await reader.rest()
        assert (only[0], only[2]["status"], only[2]["error"]["message"]) == ("completed", "failed", "it broke")
        async with following(running, ids[1]) as reader:
            await running.http.post(f"/v1/predictions/{ids[1]}/cancel")
            (only,) = await reader.rest()
        assert (only[0], only[2]["status"]) == ("completed", "canceled")


@pytest.mark.parametrize("how", ["header", "member"])
async def test_a_post_that_wants_events_is_deferred_and_followed_at_once(broker, store, how):
    async with serving(broker, store=store), gateway(broker, store) as running:
        request = {"json": {"input": 1, **({"stream": True} if how == "member" else {})}}
        headers = STREAM if how == "header" else {}
        async with running.http.stream("POST", "/v1/models/echo/predictions", headers=headers, **request) as response:
            assert response.status_code == 200
            assert "preference-applied" not in response.headers  # it preferred nothing
            location = response.headers["location"]
            assert location == f"/v1/predictions/{response.headers['x-prediction-id']}"
            *_, last = await Reader(response).rest()
        assert last[2] == (await running.http.get(location)).json()


async def test_no_cache_and_no_proxy_keeps_events_back(broker, store):
    async with serving(broker, store=store), gateway(broker, store) as running:
        headers = {**STREAM, "prefer": "respond-async"}
        response = await running.http.post("/v1/models/echo/predictions", headers=headers, json={"input": 1})
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["preference-applied"] == "respond-async"


async def test_a_post_with_a_key_may_be_followed_by_many_and_runs_once(broker, store):
    async with serving(broker, store=store) as worker, gateway(broker, store) as running:

        async def post():
            headers = {**STREAM, "idempotency-key": "k"}
            return await running.http.post("/v1/models/echo/predictions", json={"input": 1}, headers=headers)

        responses = await asyncio.gather(*(post() for _ in range(10)))
    assert len({response.text for response in responses}) == 1
    assert len(worker.requests) == 1


async def test_silence_is_filled_with_heartbeats(broker, store, echo, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT_EVERY", 0.05)
    monkeypatch.setattr(events, "STREAM", Pace(0.025, 0.05))
    async with gateway(broker, store) as running:
        id_ = await deferred(running)
        async with following(running, id_) as reader:
            waiting = asyncio.create_task(reader.next())
            await eventually(lambda: reader.comments >= 3)
            await Attempt(store, id_).finish()
            assert (await waiting)[0] == "completed"


async def test_a_result_that_is_damaged_while_it_is_followed_ends_the_stream_and_whoever_comes_back_is_told(
    broker, store, echo
):
    async with gateway(broker, store) as running:
        id_ = await deferred(running)
        attempt = Attempt(store, id_)
        await attempt.output(1)
        async with following(running, id_) as reader:
            assert (await reader.next())[2] == 1
            await attempt.output(2)
            await store.put(result_key(id_), b"damaged")
            assert [data for _, _, data in await reader.rest()] == [2], "what was before it is told"
        response = await running.http.get(f"/v1/predictions/{id_}/events", headers=STREAM)
        problem(response, 500, "result-damaged")


async def test_a_post_with_the_key_of_a_damaged_result_is_told_so_instead_of_a_stream(broker, store, echo):
    async with gateway(broker, store) as running:
        headers = {"idempotency-key": "k", "prefer": "respond-async"}
        first = await running.http.post("/v1/models/echo/predictions", json={"input": 1}, headers=headers)
        await store.put(result_key(first.json()["id"]), b"damaged")
        again = await running.http.post(
            "/v1/models/echo/predictions", json={"input": 1}, headers={**STREAM, "idempotency-key": "k"}
        )
        problem(again, 500, "result-damaged")


async def test_a_stream_ends_when_its_prediction_is_too_old_to_be_kept(broker, store, echo, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT_EVERY", 0.05)
    monkeypatch.setattr(events, "STREAM", Pace(0.025, 0.05))
    async with gateway(broker, store, results_kept_for=1.0) as running:
        id_ = await deferred(running)
        async with following(running, id_) as reader:
            assert await reader.rest() == []
        response = await running.http.get(f"/v1/predictions/{id_}/events", headers=STREAM)
        problem(response, 410, "prediction-expired")


async def test_a_gateway_that_stops_ends_its_streams_at_once_and_the_reader_goes_on_at_another(broker, store, echo):
    async with gateway(broker, store) as other:
        async with gateway(broker, store, grace=20.0) as running:
            id_ = await deferred(running)
            attempt = Attempt(store, id_)
            await attempt.output(1)
            async with following(running, id_) as reader:
                first = await reader.next()
                running.stop.set()
                assert await reader.next() is None
                assert reader.retry
            await asyncio.wait_for(running.task, 10)
        await attempt.output(2)
        await attempt.finish()
        async with following(other, id_, **{"last-event-id": first[1]}) as reader:
            assert [data for name, _, data in await reader.rest() if name == "output"] == [2]


async def test_a_reader_who_hangs_up_costs_nothing_any_more(broker, store, echo):
    looks = 0

    class Counting:
        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

        async def list(self, prefix):
            nonlocal looks
            looks += prefix.startswith("events/")
            return await self._inner.list(prefix)

    async with gateway(broker, Counting(store)) as running:
        id_ = await deferred(running)
        async with following(running, id_):
            await eventually(lambda: looks > 1)
        await asyncio.sleep(0.2)
        before = looks
        await asyncio.sleep(1.5)
        assert looks == before


async def test_a_reader_who_does_not_read_makes_nobody_hold_what_it_does_not_take(broker, store, echo):
    """100 MB of output lie in the store; of those only what fits into the socket may be in memory."""
    async with gateway(broker, store) as running, raw_connection(running.port) as (_, writer):
        id_ = await deferred(running)
        attempt = Attempt(store, id_)
        for _ in range(50):
            await attempt.output("x" * 2_000_000)
        process = psutil.Process()
        before = process.memory_info().rss
        writer.transport.pause_reading()
        writer.write(f"GET /v1/predictions/{id_}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await asyncio.sleep(1.0)
        assert process.memory_info().rss - before < 40 * 1024 * 1024


async def test_a_store_that_fails_for_a_while_only_delays(broker, store, echo):
    from dumbwaiter.errors import BlobError

    class Failing:
        def __init__(self, inner):
            self._inner = inner
            self.fails = False

        def __getattr__(self, name):
            return getattr(self._inner, name)

        async def list(self, prefix):
            if self.fails:
                raise BlobError("down")
            return await self._inner.list(prefix)

        async def get(self, key):
            if self.fails:
                raise BlobError("down")
            return await self._inner.get(key)

    failing = Failing(store)
    async with gateway(broker, failing) as running:
        id_ = await deferred(running)
        attempt = Attempt(store, id_)
        async with following(running, id_) as reader:
            await attempt.output(1)
            assert (await reader.next())[2] == 1
            failing.fails = True
            await attempt.output(2)
            await asyncio.sleep(0.1)
            failing.fails = False
            assert (await reader.next())[2] == 2
            await attempt.finish()
            assert (await reader.next())[0] == "completed"


async def test_events_of_nobody_are_404(broker, store, echo):
    async with gateway(broker, store) as running:
        problem(await running.http.get("/v1/predictions/x/events", headers=STREAM), 404, "unknown-prediction")


def test_line_breaks_in_data_never_end_an_event():
    pretty = Event(id=event_id(new_attempt(1, 1.0), 0), event="output", data=b'{\r\n "a":\r 1\n}\n')
    text = b"".join(text_of(pretty)).decode()
    assert text.count("\n") == 4
    assert json.loads(text.split("data: ")[1]) == {"a": 1}
    log = Event(
        id=event_id(new_attempt(1, 1.0), 1), event="log", data=b"a\n\nevent: forged\n", content_type="text/plain"
    )
    assert b"".join(text_of(log)).decode().count("\n") == 4
