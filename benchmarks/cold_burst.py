"""A burst of 500 requests on zero workers: when `dumbwaiter autoscale` has the first answer, and the last.

Beside it, in the same run, a worker that is started by hand at the moment of the burst: what is later than that is what
scaling from zero adds to the start of a process and the load of a model.

python benchmarks/cold_burst.py [REPEATS]
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dumbwaiter.answers import raise_for_failure
from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.presence import workers_of
from dumbwaiter.brokers import open_broker
from dumbwaiter.config import Settings, load_settings
from dumbwaiter.message import Message
from dumbwaiter.testing import eventually

REQUESTS, REPEATS, LOAD = 500, 5, 1.0
MODEL = f"""
import time

class Model:
    def __init__(self):
        time.sleep({LOAD})

    def __call__(self, text: str) -> str:
        time.sleep(0.02)
        return text
"""
SETTINGS = """
[scaling]
max_replicas = 4
idle_after = "2s"
scale_in_after = "1s"
look_every = "1s"

[models.model]
target = "network:Model"
"""


async def main(repeats: int) -> None:
    """Print the medians."""
    took: dict[str, list[tuple[float, float]]] = {"by hand": [], "autoscale": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "network.py").write_text(MODEL)
        (folder / "dumbwaiter.toml").write_text(SETTINGS)
        settings = load_settings(folder / "dumbwaiter.toml", environ={})
        async with open_broker(settings.broker) as broker:
            await broker.create_queue("model")
        with _running(folder, "worker", "model=network:Model"):  # so that the model was measured
            await _burst(settings, 10)
        for _ in range(repeats):
            took["by hand"].append(await _by_hand(folder, settings))
            with _running(folder, "autoscale"):
                await asyncio.sleep(3.0)  # it looks at an empty queue by now
                took["autoscale"].append(await _burst(settings, REQUESTS))
                await eventually(lambda: _is_empty(settings), within=60.0, what="no workers")
    print(f"{REQUESTS} requests of 20 ms at once, a model that loads for {LOAD:g} s, medians of {repeats}")
    for name, each in took.items():
        first, last = (statistics.median(one) for one in zip(*each, strict=True))
        print(f"{name:10} first answer after {first:.2f} s, last after {last:.2f} s")
    added = [one[0] - other[0] for one, other in zip(took["autoscale"], took["by hand"], strict=True)]
    print(f"added to the first answer: {statistics.median(added):.2f} s, at most {max(added):.2f} s")


async def _by_hand(folder: Path, settings: Settings) -> tuple[float, float]:
    """Start one worker at the moment of the burst."""
    with contextlib.ExitStack() as stack:

        def start() -> None:
            stack.enter_context(_running(folder, "worker", "model=network:Model"))

        return await _burst(settings, REQUESTS, start)


async def _burst(settings: Settings, count: int, start: Callable[[], None] | None = None) -> tuple[float, float]:
    """Send *count* requests at once, and *start*; seconds from then to the first answer, and to the last."""
    async with open_broker(settings.broker) as broker, open_broker(settings.broker) as hearing:
        inbox = await hearing.open_inbox()
        requests = [
            Message(id=f"{time.time_ns()}-{n}", body=b"x", content_type="text/plain", reply_to=inbox.address)
            for n in range(count)
        ]
        sent = time.perf_counter()
        await broker.send("model", requests)
        if start is not None:
            start()
        answered: list[float] = []
        async with asyncio.timeout(60.0):
            async for message in inbox:
                raise_for_failure(message)
                answered.append(time.perf_counter() - sent)
                if len(answered) == count:
                    break
        await inbox.close()
    return answered[0], answered[-1]


async def _is_empty(settings: Settings) -> bool:
    return not await workers_of(open_store(settings.blobs), "model")


@contextlib.contextmanager
def _running(folder: Path, *arguments: str) -> Iterator[None]:
    command = [sys.executable, "-m", "dumbwaiter", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DUMBWAITER_")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=log)
    try:
        yield
    except BaseException:
        sys.stderr.write((folder / "log").read_text())
        raise
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else REPEATS))
