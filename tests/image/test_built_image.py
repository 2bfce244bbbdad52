"""The image as it is rendered, built and run: whose it is, how it ends, and that nothing is lost when it is killed."""

from __future__ import annotations

import asyncio
import json
import socket

import httpx
import pytest
from containers import CONFINED, IMAGE, LIMITS

from dumbwaiter import AsyncClient
from dumbwaiter.brokers import open_broker
from dumbwaiter.errors import PredictionError
from dumbwaiter.testing import eventually

pytestmark = [pytest.mark.trial, pytest.mark.anyio, pytest.mark.timeout(900)]

KILLED = 128 + 9
LITTLE = ("--memory", "256m", "--memory-swap", "256m", "--env", "KITCHEN=small")


def shell(machine, script, *options):
    """How a script goes in a container that is confined as the workers are."""
    return machine.podman("run", "--rm", *LIMITS, *options, "--entrypoint", "sh", IMAGE, "-c", script, check=False)


def with_broker(redis, *more):
    return ("--env", f"DUMBWAITER_BROKER={redis.url}", *more)


async def ready(machine, container):
    def look():
        assert machine.runs(container), machine.logs(container)
        return machine.is_ready(container)

    await eventually(lambda: asyncio.to_thread(look), within=120.0, what=f"signs of life of {container}")
    return container


async def locked(redis, count):
    """So many messages are being worked on."""
    async with open_broker(redis.url) as broker:

        async def look():
            return (await broker.stats("kitchen")).locked == count

        await eventually(look, within=30.0, what=f"{count} locked")


def client(redis, tmp_path):
    return AsyncClient(redis.url, blobs=f"file:{tmp_path}/blobs")


async def test_it_is_not_root_and_can_write_only_where_it_must(machine):
    script = "id -u; for place in / /app /opt/dumbwaiter /etc/dumbwaiter; do touch $place/x 2>&1; done"
    done = shell(machine, script, *CONFINED)
    assert done.stdout.splitlines()[0] == "10001"
    assert done.stdout.count("Read-only file system") == 4
    written = shell(
        machine, "for place in /tmp /run/dumbwaiter /var/lib/dumbwaiter; do touch $place/x; done", *CONFINED
    )
    assert (written.returncode, written.stdout) == (0, "")
    # Without a read-only root nothing of ours can be changed, either.
    assert shell(machine, "touch /app/x /opt/dumbwaiter/x /etc/dumbwaiter/x").returncode != 0


async def test_it_holds_the_project_and_nothing_else_of_its_folder(machine):
    done = shell(machine, "cd /app && ls -A; cat /etc/dumbwaiter/dumbwaiter.toml", *CONFINED)
    assert done.stdout.splitlines()[:3] == [".dumbwaiter", "network.py", "requirements.txt"]
    assert 'target = "network:Kitchen"' in done.stdout


async def test_told_to_stop_it_answers_what_runs_and_exits_with_0(machine, redis, tmp_path):
    worker = await ready(machine, machine.start("worker", "kitchen", options=with_broker(redis)))
    async with client(redis, tmp_path) as asking:
        answer = asyncio.create_task(asking.predict("kitchen", "wait 4"))
        await locked(redis, 1)
        code = await asyncio.to_thread(machine.stop, worker, 40)
        assert code == 0, machine.logs(worker)
        assert await answer == "WAIT 4"


async def test_an_input_that_takes_too_much_memory_costs_itself_and_the_container_lives(machine, redis, tmp_path):
    small = await ready(machine, machine.start("worker", "kitchen", options=with_broker(redis, *LITTLE)))
    async with client(redis, tmp_path) as asking:
        hog = asyncio.create_task(asking.predict("kitchen", "hog", timeout=300.0))
        dishes = [asking.predict("kitchen", f"dish {number}", timeout=300.0) for number in range(20)]
        assert await asyncio.gather(*dishes) == [f"DISH {number}" for number in range(20)]
        with pytest.raises(PredictionError, match="the runner was killed by SIGKILL"):
            await hog
    assert machine.runs(small), machine.logs(small)


async def test_a_container_that_is_killed_for_its_memory_loses_nothing_and_the_next_answers_all(
    machine, redis, tmp_path
):
    small = await ready(machine, machine.start("worker", "kitchen", options=with_broker(redis, *LITTLE)))
    texts = ["fill", *(f"dish {number}" for number in range(20))]
    async with client(redis, tmp_path) as asking:
        answers = [asyncio.create_task(asking.predict("kitchen", text, timeout=300.0)) for text in texts]
        code = await asyncio.to_thread(machine.exit_code, small)
        assert code == KILLED, machine.logs(small)
        await ready(machine, machine.start("worker", "kitchen", options=with_broker(redis)))
        assert await asyncio.gather(*answers) == [text.upper() for text in texts]


async def test_its_health_check_tells_a_worker_that_lives_from_a_container_in_which_nothing_does(machine, redis):
    worker = await ready(machine, machine.start("worker", "kitchen", options=with_broker(redis)))
    assert machine.podman("healthcheck", "run", worker, check=False).returncode == 0
    idle = machine.start("3600", options=("--entrypoint", "sleep"))
    assert machine.podman("healthcheck", "run", idle, check=False).returncode != 0


async def test_gateway_and_courier_run_from_the_same_image_and_a_request_goes_all_the_way(machine, redis):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    open_to_all = ("--env", f"DUMBWAITER_GATEWAY__PORT={port}", "--env", "DUMBWAITER_GATEWAY__AUTH=off")
    volume = ("--volume", "kitchen-data:/var/lib/dumbwaiter")
    parts = [
        await ready(machine, machine.start("worker", "kitchen", options=with_broker(redis, *volume))),
        await ready(machine, machine.start("courier", options=with_broker(redis, *volume))),
        await ready(machine, machine.start("gateway", options=with_broker(redis, *volume, *open_to_all))),
    ]
    url = f"http://127.0.0.1:{port}/v1/models/kitchen/predictions"
    async with httpx.AsyncClient(trust_env=False, timeout=60.0) as asking:
        answer = await asking.post(url, content="soup", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["output"]) == (200, "SOUP")
    for part in parts:
        assert machine.podman("healthcheck", "run", part, check=False).returncode == 0
        assert await asyncio.to_thread(machine.stop, part, 60) == 0, machine.logs(part)


async def test_process_1_takes_in_what_the_work_leaves_behind(machine, redis):
    worker = await ready(machine, machine.start("worker", "kitchen", options=with_broker(redis)))
    orphan = "import subprocess; print(subprocess.Popen(['sleep', '0.2']).pid)"
    left = machine.podman("exec", worker, "python", "-c", orphan)
    look = ("exec", worker, "python", "-c", f"import os; print(os.path.exists('/proc/{left}'))")
    await eventually(lambda: machine.podman(*look) == "False", within=30.0, what="an end without a zombie")
    assert json.loads(machine.podman("inspect", worker, "--format", "{{json .State.Running}}"))
