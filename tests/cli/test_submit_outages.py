"""`dumbwaiter submit` while its broker, a real one, is away for a moment."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from dumbwaiter.brokers import open_broker
from dumbwaiter.testing.servers import SERVERS
from processes import environment

COUNT = 1000


@pytest.fixture
def server(tmp_path_factory):
    server = SERVERS["nats"](tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.stop()


async def with_queue(url, ask):
    async with open_broker(url) as broker:
        await broker.create_queue("shout")
        return await ask(broker)


def test_requests_that_are_left_meanwhile_are_all_handed_in(project, server):
    async def nothing(_):
        pass

    async def ready(broker):
        return (await broker.stats("shout")).ready

    asyncio.run(with_queue(server.url, nothing))
    texts = [f"text {number}" for number in range(COUNT)]
    command = [sys.executable, "-m", "dumbwaiter", "submit", "shout", "--no-wait", "--text", "--broker", server.url]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, *texts], cwd=project, env=environment(), **streams) as submitting:
        first = submitting.stdout.readline()
        server.stop()
        server.start()
        rest, said = submitting.communicate(timeout=50)
    ids = [first.strip(), *rest.split()]
    assert (submitting.returncode, len(set(ids))) == (0, COUNT), said
    assert asyncio.run(with_queue(server.url, ready)) >= COUNT
