"""The runner as a process: it reports, it ends with its consumer, and it never looks alive while it is deaf."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.testing import eventually
from dumbwaiter.worker.pipe import Done, Found, Item, LoadFailed, Predict, Ready
from dumbwaiter.worker.runner_process import RunnerProcess

pytestmark = pytest.mark.anyio

SHOUT = """
class Model:
    def __call__(self, text: str) -> str:
        return text.upper()
"""


SLEEPY = """
import time

class Model:
    def __init__(self):
        time.sleep(1000)
"""


async def started(folder: Path, code: str = SHOUT) -> RunnerProcess:
    (folder / "network.py").write_text(code)
    return await RunnerProcess.start(ModelSpec(name="dish", target="network:Model", project=str(folder)))


async def ready(runner: RunnerProcess) -> Ready:
    """Hear it say that its class was found, and then that it is ready."""
    found, _ = await runner.pipe.receive()
    assert isinstance(found, Found)
    meta, _ = await runner.pipe.receive()
    assert isinstance(meta, Ready)
    return meta


async def test_it_says_that_it_is_ready_and_answers(tmp_path: Path) -> None:
    runner = await started(tmp_path)
    meta = await ready(runner)
    assert meta.max_batch == 1
    item = Item(3, "text/plain", 4, None, 0.0, alone=False)
    await runner.pipe.send(Predict([item]), [b"soup"])
    done, bodies = await runner.pipe.receive()
    assert isinstance(done, Done)
    assert [(result.slot, result.fault) for result in done.results] == [(3, None)]
    assert bytes(bodies) == b"SOUP"
    await runner.close()


async def test_it_says_why_it_cannot_load_and_exits(tmp_path: Path) -> None:
    runner = await started(tmp_path, "import no_such_thing")
    meta, _ = await runner.pipe.receive()
    assert isinstance(meta, LoadFailed)
    assert "'no_such_thing', which is not installed" in meta.message
    assert "exited with code 1" in (await runner.died()).message
    await runner.close()


async def test_a_frame_that_it_cannot_read_ends_it(tmp_path: Path) -> None:
    runner = await started(tmp_path)
    await ready(runner)
    runner.pipe._writer.write(struct.pack("<IQ", 3, 0) + b"\xc1\xc1\xc1")
    async with asyncio.timeout(20):
        cause = await runner.died()
    assert cause.message == "the runner exited with code 1"
    await runner.close()


async def test_a_closed_pipe_ends_it_in_peace(tmp_path: Path) -> None:
    runner = await started(tmp_path)
    await ready(runner)
    runner.pipe.close()
    async with asyncio.timeout(20):
        assert (await runner.died()).message == "the runner exited with code 0"
    await runner.close()


async def test_close_ends_it_and_its_children(tmp_path: Path) -> None:
    code = SHOUT.replace("class", "import subprocess\nsubprocess.Popen(['sleep', '1000'])\n\n\nclass", 1)
    runner = await started(tmp_path, code)
    await ready(runner)
    (child,) = psutil.Process(runner.pid).children()
    await runner.close()
    await eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


async def test_it_keeps_its_memory_unless_the_environment_says_otherwise(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MALLOC_TOP_PAD_", "4096")
    runner = await started(tmp_path)
    environment = psutil.Process(runner.pid).environ()
    assert int(environment["MALLOC_TRIM_THRESHOLD_"]) > 2**30
    assert environment["MALLOC_TOP_PAD_"] == "4096"
    await runner.close()


async def test_it_dies_with_its_consumer_whatever_it_is_doing(tmp_path: Path) -> None:
    (tmp_path / "network.py").write_text(SLEEPY)
    consumer = f"""
import asyncio
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.worker.runner_process import RunnerProcess

async def main():
    spec = ModelSpec(name="dish", target="network:Model", project={str(tmp_path)!r})
    print((await RunnerProcess.start(spec)).pid, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""
    command = [sys.executable, "-c", consumer]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: ASYNC220 - its own thread waits for it
    assert process.stdout is not None
    runner = psutil.Process(int(await asyncio.to_thread(process.stdout.readline)))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    await eventually(lambda: not runner.is_running() or runner.status() == psutil.STATUS_ZOMBIE)
