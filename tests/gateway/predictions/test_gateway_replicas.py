"""Two gateways and a worker as processes of their own over one SQLite file: what one accepts, the other knows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys

import httpx
import pytest
from problems_seen import problem

from dumbwaiter.testing import eventually
from processes import environment

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

MODELS = '''
import pathlib
import time


class Count:
    """How often it was called is seen in a file; *seconds* is how long it takes."""

    def __call__(self, name: str, seconds: float = 0.0) -> str:
        with open(name, "a") as calls:
            calls.write("x")
        pathlib.Path("running").touch()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.01)
        return name.upper()


class Spell:
    def __call__(self, text: str, seconds: float = 0.0):
        for letter in text:
            print("spelling", letter)
            yield letter
            time.sleep(seconds)
'''


class House:
    """Processes in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self._processes = []
        (folder / "slow.py").write_text(MODELS)

    def start(self, *arguments):
        log = (self.folder / f"{len(self._processes)}.log").open("wb")
        command = [sys.executable, "-m", "dumbwaiter", *arguments]
        streams = {"stdout": subprocess.PIPE, "stderr": log}
        process = subprocess.Popen(command, cwd=self.folder, env=environment(), **streams)
        self._processes.append((process, log))
        return process

    async def gateway(self, port=0):
        if not port:
            port = free_port()
        process = self.start("gateway", "--port", str(port))
        line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 30)
        assert re.search(rb"listening on http", line), line
        return process, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=40, trust_env=False)

    def calls(self, name):
        path = self.folder / name
        return len(path.read_text()) if path.exists() else 0

    def close(self):
        for process, _ in self._processes:
            if process.poll() is None:
                process.terminate()
        for process, log in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            process.kill()
            process.communicate()
            log.close()


def free_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture
async def house(tmp_path):
    house = House(tmp_path)
    yield house
    await asyncio.to_thread(house.close)


async def is_ready(http, model):
    async def ready():
        models = (await http.get("/v1/models")).json()["models"]
        return any(worker["state"] == "ready" for one in models if one["name"] == model for worker in one["workers"])

    await eventually(ready, within=40.0)


async def asked(http, model, arguments, **headers):
    return await http.post(f"/v1/models/{model}/predictions", json={"input": arguments}, headers=headers)


def arguments(n):
    return {"name": f"n{n}", "seconds": 0.3}


async def test_a_gateway_is_killed_with_requests_waiting_and_the_other_one_answers_with_the_same_keys(house):
    (dying, one), (_, other) = await house.gateway(), await house.gateway()
    async with one, other:
        house.start("worker", "slow.py:Count")
        await is_ready(one, "count")
        waiting = [
            asyncio.create_task(asked(one, "count", arguments(n), **{"idempotency-key": f"k{n}"})) for n in range(6)
        ]
        deferred = (await asked(one, "count", {"name": "late"}, prefer="respond-async")).json()["id"]
        await eventually((house.folder / "running").exists, within=20.0)
        dying.send_signal(signal.SIGKILL)
        for task in waiting:
            # anyio says AttributeError of a connection that was lost while it was being made.
            with contextlib.suppress(httpx.HTTPError, AttributeError):
                await task
        again = await asyncio.gather(
            *(
                asked(other, "count", {"name": f"n{n}", "seconds": 0.3}, **{"idempotency-key": f"k{n}"})
                for n in range(6)
            )
        )
        assert [response.json()["output"] for response in again] == [f"N{n}" for n in range(6)]
        kept = await other.get(f"/v1/predictions/{deferred}", headers={"prefer": "wait=20"})
        assert kept.json()["output"] == "LATE"
    assert [house.calls(f"n{n}") for n in range(6)] == [1] * 6


async def test_a_prediction_that_waits_and_is_cancelled_never_runs_and_one_that_runs_makes_room(house):
    _, http = await house.gateway()
    async with http:
        house.start("worker", "slow.py:Count")
        await is_ready(http, "count")
        long = asyncio.create_task(asked(http, "count", {"name": "long", "seconds": 60}, **{"idempotency-key": "long"}))
        await eventually((house.folder / "running").exists, within=20.0)
        behind = (await asked(http, "count", {"name": "never"}, prefer="respond-async")).json()
        assert (await http.post(behind["urls"]["cancel"])).json()["status"] == "canceled"
        running = (await http.get("/v1/models/count/predictions/long")).json()
        assert (await http.post(running["urls"]["cancel"])).json()["status"] == "canceled"
        problem(await long, 409, "canceled")
        after = await asked(http, "count", {"name": "after"})
        assert after.json()["output"] == "AFTER"
    assert (house.calls("never"), house.calls("after")) == (0, 1)


async def test_the_events_of_a_generator_model_come_through_another_gateway(house):
    (_, one), (_, other) = await house.gateway(), await house.gateway()
    async with one, other:
        house.start("worker", "slow.py:Spell")
        await is_ready(one, "spell")
        id_ = (await asked(one, "spell", {"text": "abc", "seconds": 0.2}, prefer="respond-async")).json()["id"]
        seen = []
        async with other.stream("GET", f"/v1/predictions/{id_}/events") as response:
            name = ""
            async for line in response.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    seen.append((name, json.loads(line.removeprefix("data: "))))
    assert seen[0][0] == "start"
    assert [data for name, data in seen if name == "output"] == ["a", "b", "c"]
    assert any(name == "log" and "spelling a" in data for name, data in seen)
    assert (seen[-1][0], seen[-1][1]["status"]) == ("completed", "succeeded")
