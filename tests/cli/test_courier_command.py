"""`dumbwaiter courier` on its own, as a process manager would run it; also when it is killed in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys

import httpx
import pytest
from standardwebhooks import Webhook

from dumbwaiter import notification
from dumbwaiter.answers import succeeded
from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.results import save_result
from dumbwaiter.brokers import open_broker
from dumbwaiter.message import WEBHOOK, WEBHOOKS_QUEUE, Message, Timings
from dumbwaiter.testing import eventually
from http_servers import always, response, serving
from processes import environment

pytestmark = pytest.mark.anyio

HERE = {"DUMBWAITER_OUTBOUND__ALLOW_HTTP": "true", "DUMBWAITER_OUTBOUND__ALLOWED_NETWORKS": "127.0.0.1/32"}


class Courier:
    def __init__(self, project, **variables):
        command = [sys.executable, "-m", "dumbwaiter", "courier"]
        known = environment(**{**HERE, "DUMBWAITER_LOCK_DURATION": "2s", **variables})
        self.process = subprocess.Popen(
            command, cwd=project, env=known, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    async def ready(self):
        """Its log may tell more before that."""
        while b"the courier is ready" not in (line := await asyncio.to_thread(self.process.stdout.readline)):
            assert line, "it ended"
        return self

    async def stop(self):
        """Exit code after a SIGTERM."""
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, 40)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def start(project):
    with contextlib.ExitStack() as stack:

        def start(**variables):
            courier = Courier(project, **variables)
            stack.callback(courier.kill)
            return courier

        yield start


@pytest.fixture
async def notify(project):
    """Do what a worker does when the webhook of a request is at this URL."""
    store = open_store(f"file://{project}/.dumbwaiter/blobs")
    async with open_broker(f"sqlite://{project}/.dumbwaiter/queue.db") as broker:
        await broker.create_queue(WEBHOOKS_QUEUE)

        async def notify(url):
            request = Message(extensions={WEBHOOK: url})
            answer = succeeded(request, body=b'"yes"', content_type="application/json", timings=Timings())
            answer = await save_result(store, request.id, answer, threshold=1024)
            await broker.send(WEBHOOKS_QUEUE, notification.completed(request, answer, model="shout"))
            return request

        notify.stats = lambda: broker.stats(WEBHOOKS_QUEUE)
        yield notify


async def test_it_delivers_and_sigterm_ends_it_with_0(start, notify):
    async with serving(always(response())) as server:
        courier = await start().ready()
        request = await notify(server.url())
        await eventually(lambda: server.asked)
        assert await courier.stop() == 0
    assert request.id.encode() in server.asked[0].body


async def test_what_a_killed_courier_had_in_hand_the_next_one_delivers_at_once(start, notify):
    async def hang(asked, writer):
        if len(server.asked) > 3:
            writer.write(response())
        else:
            await asyncio.Event().wait()

    async with serving(hang) as server:
        first = await start(DUMBWAITER_LOCK_DURATION="300s").ready()
        for _ in range(3):
            await notify(server.url())
        await eventually(lambda: len(server.asked) == 3)
        first.kill()
        await start(DUMBWAITER_LOCK_DURATION="300s").ready()
        await eventually(lambda: nothing_left(notify), within=20.0, what="all of them, long before their locks end")
        ids = [asked.headers["webhook-id"] for asked in server.asked]
        assert sorted(ids[:3]) == sorted(ids[3:])


async def test_a_courier_that_is_killed_in_the_middle_loses_nothing_and_the_next_one_says_the_same_id(start, notify):
    async def hang(asked, writer):
        if asked.headers["webhook-id"] in {one.headers["webhook-id"] for one in server.asked[:-1]}:
            writer.write(response())  # the second time
        else:
            await asyncio.Event().wait()

    async with serving(hang) as server:
        first = await start().ready()
        for _ in range(5):
            await notify(server.url())
        await eventually(lambda: len(server.asked) == 5)
        first.kill()
        await start().ready()
        await eventually(lambda: len(server.asked) == 10, within=20.0)
        ids = [asked.headers["webhook-id"] for asked in server.asked]
        assert set(ids[:5]) == set(ids[5:])
        assert len(set(ids)) == 5
        await eventually(lambda: nothing_left(notify))


async def nothing_left(notify):
    stats = await notify.stats()
    return (stats.ready, stats.locked, stats.delayed, stats.dead) == (0, 0, 0, 0)


async def test_what_could_not_be_delivered_is_listed_with_its_reason_and_can_be_redriven(start, notify, run):
    request = await notify("http://10.0.0.1/hook")
    await start().ready()

    async def has_died():
        return (await notify.stats()).dead == 1

    await eventually(has_died)
    shown = await asyncio.to_thread(run, "dead-letters", "list", "dumbwaiter.webhooks")
    assert "forbidden-url" in shown.stdout
    assert "'http://10.0.0.1/hook' must not be reached" in shown.stdout
    assert "dumbwaiter.webhooks" in (await asyncio.to_thread(run, "queues")).stdout
    shown = await asyncio.to_thread(run, "dead-letters", "redrive", "dumbwaiter.webhooks", "--all")
    assert shown.stdout == "redriven 1\n"
    await eventually(has_died)
    assert request.id


def test_settings_that_name_no_network_end_it_with_2(run):
    shown = run("courier", DUMBWAITER_OUTBOUND__ALLOWED_NETWORKS="inside")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "outbound.allowed_networks: 'inside'" in shown.stderr


async def test_serve_delivers_the_webhook_of_a_rest_caller_and_the_reply_of_a_message_on_the_queue(serve, project):
    serving_ = await asyncio.to_thread(lambda: serve("light:Shout", **HERE).ready())
    async with serving(always(response())) as server, httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
        secret = (await client.get(f"{serving_.gateway}/v1/webhooks/default/secret")).json()["key"]
        answer = await client.post(
            serving_.models["shout"]["url"],
            json={"input": "two eggs", "webhook": server.url("/hook")},
            headers={"Prefer": "respond-async"},
        )
        assert answer.status_code == 202
        async with open_broker(f"sqlite://{project}/.dumbwaiter/queue.db") as broker:
            message = Message(body=b"toast", content_type="text/plain", reply_to=server.url("/reply"))
            await broker.send("shout", [message])
            await eventually(lambda: len(server.asked) == 2, within=20.0)
    asked = {one.path: one for one in server.asked}
    Webhook(secret).verify(asked["/hook"].body, asked["/hook"].headers)
    told = json.loads(asked["/hook"].body)
    assert (told["id"], told["status"], told["output"]) == (answer.json()["id"], "succeeded", "TWO EGGS")
    assert (asked["/reply"].body, asked["/reply"].headers["ce-correlationid"]) == (b"TOAST", message.id)
