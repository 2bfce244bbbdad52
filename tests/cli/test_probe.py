"""`dumbwaiter probe` on real workers and couriers, as Kubernetes asks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from dumbwaiter.heartbeat import BEAT_EVERY, SilentError, look
from dumbwaiter.testing import eventually
from processes import environment

pytestmark = pytest.mark.anyio


@pytest.fixture
def start(project):
    """Start one command with a heartbeat of its own."""
    running = []

    def started(*arguments):
        variables = environment(DUMBWAITER_HEARTBEAT=str(project / "heartbeat"))
        command = [sys.executable, "-m", "dumbwaiter", *arguments]
        process = subprocess.Popen(command, cwd=project, env=variables, stderr=subprocess.DEVNULL)
        running.append(process)
        return process

    yield started
    for process in running:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(timeout=30)


def probe(run, project, what):
    return run("probe", what, DUMBWAITER_HEARTBEAT=str(project / "heartbeat"))


async def test_a_worker_lives_before_it_is_ready(run, project, start):
    start("worker", "light:Picky")
    await eventually(lambda: probe(run, project, "live").returncode == 0)
    assert probe(run, project, "ready").returncode == 1
    (project / "weights").touch()
    done = await eventually(lambda: (one := probe(run, project, "ready")).returncode == 0 and one)
    assert done.stdout.startswith("ready, ")


async def test_a_courier_is_ready(run, project, start):
    start("courier")
    await eventually(lambda: probe(run, project, "ready").returncode == 0)


MANY = {
    "serve": ["serve", "light:Picky", "--port", "0"],
    "autoscale": ["autoscale"],
    "scaler": ["scaler", "--grpc-port", "0", "--http-port", "0"],
}
#: More than between two signs of one that lives.
SOON = BEAT_EVERY + 3.0


async def silence(project, monkeypatch):
    """Until the last sign of life is older than one that lives ever lets it become."""
    monkeypatch.setattr("dumbwaiter.heartbeat.STALE_AFTER", SOON)

    def is_silent():
        try:
            look(project / "heartbeat")
        except SilentError:
            return True
        return False

    await eventually(is_silent, within=SOON + 10.0)


@pytest.mark.parametrize("arguments", [["courier"], *MANY.values()], ids=["courier", *MANY])
async def test_one_that_hangs_is_seen_whatever_its_children_do(run, project, start, monkeypatch, arguments):
    (project / "weights").touch()
    (project / "dumbwaiter.toml").write_text('[models.picky]\ntarget = "light:Picky"\nscaling.max_replicas = 2\n')
    process = start(*arguments)
    await eventually(lambda: probe(run, project, "ready").returncode == 0)
    os.kill(process.pid, signal.SIGSTOP)
    await silence(project, monkeypatch)


async def test_one_that_has_left_gives_no_sign(run, project, start):
    process = start("courier")
    await eventually(lambda: probe(run, project, "ready").returncode == 0)
    process.terminate()
    assert process.wait(timeout=30) == 0
    done = probe(run, project, "live")
    assert done.returncode == 1
    assert "no sign of life" in done.stderr


def test_where_nothing_is_set_it_says_what_to_write(run):
    done = run("probe", "live")
    assert done.returncode == 2
    assert "heartbeat = FILE" in done.stderr
