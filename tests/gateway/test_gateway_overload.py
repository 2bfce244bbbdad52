"""More requests than the workers can do: who is let in, who is told to come later, and what it costs in memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time

import httpx
import psutil
import pytest
from gateway_running import gateway
from msgspec.structs import replace

from dumbwaiter.answers import succeeded
from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.presence import WorkerStatus, announce
from dumbwaiter.brokers import open_broker
from dumbwaiter.brokers.memory import MemoryBroker
from dumbwaiter.gateway import catalogue as catalogue_module
from dumbwaiter.gateway.catalogue import Catalogue
from dumbwaiter.gateway.http.problems import ProblemError
from dumbwaiter.message import Message, Timings
from dumbwaiter.testing import eventually
from echo_worker import serving
from processes import environment

pytestmark = pytest.mark.anyio

RAW = {"content-type": "a/b"}


async def announced(store, *seconds_each, state="ready"):
    for number, seconds in enumerate(seconds_each):
        status = WorkerStatus(worker=f"w{number}", model="echo", state=state, seconds_each=seconds)
        await announce(store, status)


async def backlog(broker, count):
    await broker.create_queue("echo")
    await broker.send("echo", [Message(id=f"before-{number}", body=b"x") for number in range(count)])


def patient(seconds):
    return {**RAW, "prefer": f"wait={seconds}"}


async def test_what_would_come_too_late_is_503_with_the_time_until_it_would_not(broker, store):
    await backlog(broker, 200)
    await announced(store, 0.5, 0.5)  # 50 seconds of work for the two
    async with gateway(broker, store) as running:

        async def refused():
            response = await running.predict(content=b"1", headers=patient(1))
            return response if response.json()["code"] == "overloaded" else None

        response = await eventually(refused, within=15.0)
        assert response.status_code == 503
        assert 44 <= int(response.headers["retry-after"]) <= 56
        assert f"ask again in {response.headers['retry-after']} s" in response.json()["detail"]
        patience = asyncio.create_task(running.predict(content=b"2", headers=patient(300)))

        async def is_queued():
            return (await broker.stats("echo")).ready >= 201

        await eventually(is_queued)
        patience.cancel()
    sent = await broker.stats("echo")
    assert sent.ready < 210  # those that came before the first look, and no refused one


async def test_a_deadline_counts_as_patience_does_and_without_either_there_is_time(broker, store):
    await backlog(broker, 200)
    await announced(store, 0.5)
    async with gateway(broker, store) as running:

        async def status(**more):
            headers = {**RAW, "prefer": "respond-async", **more}
            return (await running.predict(content=b"1", headers=headers)).status_code

        async def is_refused():
            return await status(**{"dumbwaiter-deadline": str(time.time() + 20)}) == 503

        await eventually(is_refused, within=15.0)
        assert await status(**{"dumbwaiter-deadline": str(time.time() + 500)}) == 202
        assert await status() == 202


@pytest.mark.parametrize(
    ("seconds_each", "state"), [((), "ready"), ((0.0,), "ready"), ((100.0,), "loading"), ((100.0,), "draining")]
)
async def test_where_nobody_can_tell_how_long_it_takes_all_are_let_in(broker, store, seconds_each, state):
    """No worker yet (scaled to zero, or still loading), or none that has measured."""
    await backlog(broker, 1000)
    await announced(store, *seconds_each, state=state)
    async with gateway(broker, store) as running:
        for _ in range(3):
            response = await running.predict(content=b"1", headers=patient(1))
            assert (response.status_code, response.json()["code"]) == (504, "no-answer-in-time")


async def test_where_the_broker_cannot_count_all_are_let_in_and_nobody_asks_it(broker, store, monkeypatch):
    async def counts_nothing(self, queue):
        raise AssertionError("it declares that it does not count what is ready")

    monkeypatch.setattr(MemoryBroker, "capabilities", replace(MemoryBroker.capabilities, counts_ready=False))
    monkeypatch.setattr(MemoryBroker, "stats", counts_nothing)
    await backlog(broker, 1000)
    await announced(store, 100.0)
    async with gateway(broker, store) as running:
        for _ in range(3):
            response = await running.predict(content=b"1", headers=patient(1))
            assert (response.status_code, response.json()["code"]) == (504, "no-answer-in-time")


async def test_a_crowd_that_comes_between_two_looks_counts_itself(broker, store, monkeypatch):
    await broker.create_queue("echo")
    await announced(store, 1.0)
    async with gateway(broker, store) as running:
        with contextlib.suppress(httpx.HTTPError):
            await running.predict(content=b"1", headers=patient(1))  # so that somebody looks
        monkeypatch.setattr(catalogue_module, "LOOK_EVERY", 60.0)
        await asyncio.sleep(1.2)  # the last look of the quick kind
        responses = await asyncio.gather(*(running.predict(content=b"1", headers=patient(5)) for _ in range(60)))
    codes = [response.json()["code"] for response in responses]
    assert codes.count("overloaded") >= 50
    assert codes.count("no-answer-in-time") >= 2


async def test_what_is_sent_while_a_look_counts_the_queue_is_not_overlooked(store, monkeypatch):
    looks: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()

    class SlowToCount(MemoryBroker):
        async def stats(self, queue):
            stats = await super().stats(queue)
            may_go_on = asyncio.get_running_loop().create_future()
            looks.put_nowait(may_go_on)
            await may_go_on
            return stats

    async def next_look():
        return await asyncio.wait_for(looks.get(), 10)

    monkeypatch.setattr(catalogue_module, "LOOK_EVERY", 0.01)
    await announced(store, 1.0)
    async with SlowToCount("memory:") as broker:
        await backlog(broker, 10)
        catalogue = Catalogue(broker, store, waiting=set, on_failing=lambda _model, _reason: None)
        catalogue.failing_reason("echo")  # whoever asks makes it look
        (await next_look()).set_result(None)
        second = await next_look()
        catalogue.require_time("echo", 15.0)
        for _ in range(20):
            catalogue.admit("echo", None)
        second.set_result(None)
        await next_look()
        with pytest.raises(ProblemError, match="more work than it can do within 15 s"):
            catalogue.require_time("echo", 15.0)
        await catalogue.close()


async def test_a_request_that_comes_again_is_never_too_many(broker, store):
    """The first one is in the queue, or its caller could not know; it is the same work."""
    await broker.create_queue("echo")
    await announced(store, 1.0)
    headers = {**patient(1), "idempotency-key": "once"}
    async with gateway(broker, store) as running:
        assert (await running.predict(content=b"1", headers=headers)).json()["code"] == "no-answer-in-time"
        await backlog(broker, 200)

        async def others_are_refused():
            return (await running.predict(content=b"1", headers=patient(1))).json()["code"] == "overloaded"

        await eventually(others_are_refused, within=15.0)
        again = await running.predict(content=b"1", headers=headers)
        assert (again.status_code, again.json()["code"]) == (504, "no-answer-in-time")


async def test_a_look_that_is_too_old_says_nothing(broker, store, monkeypatch):
    await backlog(broker, 1000)
    await announced(store, 1.0)
    async with gateway(broker, store) as running:

        async def code():
            return (await running.predict(content=b"1", headers=patient(1))).json()["code"]

        async def is_refused():
            return await code() == "overloaded"

        await eventually(is_refused, within=15.0)
        monkeypatch.setattr(catalogue_module, "LOAD_IS_OLD_AFTER", 0.0)
        assert await code() == "no-answer-in-time"


async def test_when_the_work_is_done_requests_are_let_in_again(broker, store):
    await backlog(broker, 500)
    await announced(store, 0.1)
    async with gateway(broker, store) as running:

        async def is_refused():
            return (await running.predict(content=b"1", headers=patient(1))).status_code == 503

        await eventually(is_refused, within=15.0)
        async with serving(broker):

            async def is_served():
                return (await running.predict(content=b"1", headers=patient(1))).status_code == 200

            await eventually(is_served, within=15.0)


# --- memory, of a gateway in a process of its own ---


@contextlib.asynccontextmanager
async def gateway_process(folder, **variables):
    """A real `dumbwaiter gateway` over sqlite and a folder; its process, a client, and the same broker from here."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dumbwaiter", "gateway", "--port", str(port)]
    log = (folder / "gateway.log").open("wb")
    process = subprocess.Popen(  # noqa: ASYNC220 - it takes no time
        command, cwd=folder, env=environment(**variables), stdout=log, stderr=subprocess.STDOUT
    )
    limits = httpx.Limits(max_connections=None)
    try:
        async with (
            open_broker(f"sqlite:{folder}/.dumbwaiter/queue.db", lock_duration=30.0) as broker,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits) as http,
        ):
            await broker.create_queue("echo")

            async def is_up():
                with contextlib.suppress(httpx.TransportError):
                    return (await http.get("/v2/health/ready")).status_code == 200

            await eventually(is_up, within=30.0)
            yield psutil.Process(process.pid), http, broker
    finally:
        process.kill()
        process.wait()
        log.close()


class Memory:
    """The most that a process occupied, sampled."""

    def __init__(self, process):
        self._process = process
        self.before = self.most = process.memory_info().rss

    async def sample(self):
        while True:
            self.most = max(self.most, self._process.memory_info().rss)
            await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def watched(self):
        task = asyncio.create_task(self.sample())
        try:
            yield self
        finally:
            task.cancel()


async def slow_worker(broker, *, each):
    """Answers with a few bytes, one every *each* seconds; what is too late already takes no time."""
    while True:
        for delivery in await broker.receive("echo", max_messages=1, max_wait=1.0):
            request = delivery.message
            if request.reply_to and (request.deadline or 0.0) > time.time():
                await asyncio.sleep(each)
                answer = succeeded(request, body=b"done", content_type="a/b", timings=Timings())
                with contextlib.suppress(Exception):
                    await broker.reply(request.reply_to, [answer])
            await broker.complete([delivery])


@pytest.mark.trial
@pytest.mark.timeout(120)
@pytest.mark.parametrize("knows_its_workers", [True, False])
async def test_memory_stays_flat_at_three_times_overload_and_those_too_many_are_told_so(tmp_path, knows_its_workers):
    """50 a second can be done and 3 times as many come, each with 200 KB; those too many are refused at once."""
    store = open_store(f"file:{tmp_path}/.dumbwaiter/blobs")
    limit = 16 * 1024 * 1024
    async with gateway_process(tmp_path, DUMBWAITER_GATEWAY__MEMORY_LIMIT=str(limit)) as (process, http, broker):
        if knows_its_workers:
            await announced(store, 0.02)
        working = asyncio.create_task(slow_worker(broker, each=0.02))
        body = os.urandom(200_000)
        statuses: list[tuple[int, str]] = []

        async def ask():
            response = await http.post("/v1/models/echo/predictions", content=body, headers=patient(3))
            retry = response.headers.get("retry-after", "")
            statuses.append((response.status_code, retry))
            assert response.status_code in {200, 504} or int(retry) >= 1

        async def crowd(seconds):
            tasks = set()
            for _ in range(int(seconds * 150)):
                tasks.add(asyncio.create_task(ask()))
                await asyncio.sleep(1 / 150)
            await asyncio.gather(*tasks)

        await crowd(3.0)
        memory = Memory(process)
        async with memory.watched():
            await crowd(6.0)
        working.cancel()
    codes = [status for status, _ in statuses]
    assert codes.count(200) >= 20
    assert codes.count(503) >= 200
    assert set(codes) <= {200, 503, 504}
    assert memory.most - memory.before < 2 * limit


@pytest.mark.trial
@pytest.mark.timeout(240)
async def test_a_2_gb_upload_never_sits_in_memory(tmp_path):
    variables = {"DUMBWAITER_GATEWAY__BODY_LIMIT": "3GB", "DUMBWAITER_GATEWAY__BODY_TIMEOUT": "120s"}
    nbytes, piece = 2_000_000_000, os.urandom(1_000_000)
    async with gateway_process(tmp_path, **variables) as (process, http, broker):
        for _ in range(3):
            await http.get("/v2/health/live")
        memory = Memory(process)

        async def pieces():
            for _ in range(nbytes // len(piece)):
                yield piece

        async with memory.watched():
            headers = {**RAW, "prefer": "respond-async", "content-length": str(nbytes)}
            response = await http.post("/v1/models/echo/predictions", content=pieces(), headers=headers, timeout=200)
        assert response.status_code == 202, response.text
        assert memory.most - memory.before < 100 * 1024 * 1024
        (delivery,) = await broker.receive("echo", max_messages=1, max_wait=5.0)
        store = open_store(f"file:{tmp_path}/.dumbwaiter/blobs")
        key = delivery.message.data_ref.removeprefix("blob:")
        assert await store.size(key) == nbytes
        await store.delete(key)
