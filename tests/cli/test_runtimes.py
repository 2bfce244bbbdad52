"""`dumbwaiter gateway` and `dumbwaiter worker` on their own, as a process manager would run them."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys

import httpx
import psutil
import pytest

from dumbwaiter.brokers import ADAPTERS
from dumbwaiter.testing import eventually
from dumbwaiter.testing.servers.redis import RedisServer, redis_program
from processes import environment, gone

pytestmark = pytest.mark.anyio

SCHEMES = [f"{scheme}:" for scheme in sorted(ADAPTERS)]


class Runtime:
    """A process whose output goes to a file."""

    def __init__(self, project, *arguments, **variables):
        self._file = project / f"{arguments[0]}.log"
        command = [sys.executable, "-m", "dumbwaiter", *arguments]
        with self._file.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=project, env=environment(**variables), stdout=log, stderr=subprocess.STDOUT
            )

    @property
    def log(self):
        return self._file.read_text()

    async def says(self, words):
        await eventually(lambda: words in self.log, within=30.0, what=f"{words!r} in the log")

    async def stop(self):
        """Exit code after a SIGTERM."""
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, 40)


@pytest.fixture
def runtime(project):
    with contextlib.ExitStack() as stack:

        def start(*arguments, **variables):
            started = Runtime(project, *arguments, **variables)
            stack.callback(started.process.wait)
            stack.callback(started.process.kill)
            return started

        yield start


async def test_a_gateway_and_a_worker_meet_in_the_queue_and_sigterm_ends_both_with_0(runtime):
    worker = runtime("worker", "light:Shout")
    gateway = runtime("gateway", "--port", "0")
    await gateway.says("listening on http://127.0.0.1:")
    await worker.says("model shout is ready")
    address = gateway.log.partition("listening on ")[2].partition("\n")[0]
    async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
        url = f"{address}/v1/models/shout/predictions"
        answer = await client.post(url, content="abc", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["output"]) == (200, "ABC")
    runners = psutil.Process(worker.process.pid).children(recursive=True)
    assert runners
    assert (await gateway.stop(), await worker.stop()) == (0, 0)
    await gone(runners)


async def test_a_worker_takes_a_model_and_its_weights_from_the_settings(runtime, project, run):
    (project / "weighted.py").write_text(
        "class Read:\n"
        "    def __init__(self, tuned_weights: str):\n"
        "        self.weights = open(tuned_weights).read()\n"
        "    def __call__(self, text: str) -> str:\n"
        "        return text + self.weights\n"
    )
    (project / "one.bin").write_text("one")
    (project / "two.bin").write_text("two")
    (project / "dumbwaiter.toml").write_text('[models.reader]\ntarget = "weighted:Read"\nweights = "one.bin"\n')
    worker = runtime("worker", "reader")
    await worker.says("model reader is ready")
    assert run("submit", "reader", "is ").stdout == "is one\n"
    assert await worker.stop() == 0
    worker = runtime("worker", "reader", "--weights", "two.bin")
    await worker.says("model reader is ready")
    assert run("submit", "reader", "is ").stdout == "is two\n"


async def test_a_worker_whose_model_does_not_load_shows_why_and_where_and_tries_again(runtime, project):
    worker = runtime("worker", "light:Picky")
    await worker.says("model picky cannot be loaded (try 2): cannot load 'light:Picky': Picky() raised RuntimeError")
    assert worker.log.count('    raise RuntimeError("no weights in this house")\n') == 1, "the traceback, once"
    (project / "weights").touch()
    await worker.says("model picky is ready")
    assert await worker.stop() == 0


async def test_logs_for_machines_are_json_also_when_a_model_does_not_load(runtime):
    worker = runtime("worker", "light:Picky", "--log-format", "json")
    await worker.says("(try 2)")
    events = [line for line in worker.log.splitlines() if line]
    assert all(line.startswith('{"time":') for line in events)
    assert '"traceback":"Traceback' in events[0]


async def test_after_a_request_that_came_too_late_the_worker_serves_on(runtime, project, run):
    worker = runtime("worker", "light:Shout")
    await worker.says("model shout is ready")
    assert await worker.stop() == 0
    assert run("submit", "shout", "too late", "--wait", "100ms").returncode == 1
    worker = runtime("worker", "light:Shout")
    await worker.says("model shout is ready")
    assert run("submit", "shout", "in time", "--wait", "30s").stdout == "IN TIME\n"


def test_a_worker_needs_a_class(run):
    shown = run("worker", "light.py")
    assert shown.returncode == 2
    assert "'light.py' names no class; write light.py:CLASS, such as light.py:Infer; see: " in shown.stderr


@pytest.mark.parametrize("command", [("worker", "light:Shout"), ("gateway", "--port", "0"), ("serve", "light:Shout")])
def test_an_unknown_broker_is_told_with_those_that_there_are(run, command):
    shown = run(*command, "--broker", "rabbit://x")
    assert shown.returncode == 2
    assert shown.stderr == (
        f"dumbwaiter: error: no broker for 'rabbit://x': its scheme must be one of {', '.join(SCHEMES)}\n"
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("gateway", "--port", "0"), "listening on"),
        (("worker", "light:Shout"), "model shout is ready"),
        (("courier",), "the courier is ready"),
    ],
)
async def test_whoever_asks_it_to_stop_until_it_is_gone_does_not_kill_it(runtime, command, words):
    started = runtime(*command)
    await started.says(words)

    def gone_by_sigterm():
        started.process.terminate()
        return started.process.poll() is not None

    await eventually(gone_by_sigterm, within=30.0)
    assert started.process.returncode == 0, started.log


async def test_a_worker_says_so_when_its_broker_keeps_nothing_on_disk(runtime, tmp_path):
    server = RedisServer(redis_program(), tmp_path / "redis", "--appendonly", "no")
    server.start()
    try:
        worker = runtime("worker", "light:Shout", DUMBWAITER_BROKER=server.url)
        await worker.says("is lost when its server stops, as that is configured; dumbwaiter doctor says what to change")
    finally:
        server.stop()
