# ruff: noqa: S310, S603, E402 - it starts and asks only what it names itself
"""The whole system on this machine: photographs go in through REST and through the queue, their classes come back.

`make demo` runs it. It starts `dumbwaiter serve` with the classifier on a fresh broker in a temporary folder and a free
port, classifies each photograph through both doors, shows where the time went, and stops everything. It exits with 1,
and the log, if anything fails or a photograph is not recognised. Ctrl-C stops everything, too.

`make demo BROKER=redis` (or valkey, nats, rabbitmq, sqs ...) does the same over that server, which it starts and stops
itself.
"""

import os
import signal


def _give_up(*_):
    print("interrupted", flush=True)
    os._exit(130)


# What follows takes seconds to import, and a library may take an interruption there for something else.
signal.signal(signal.SIGINT, _give_up)

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from skimage import data

from dumbwaiter import Client, Message
from dumbwaiter.answers import raise_for_failure, timings_of
from dumbwaiter.brokers import open_broker, shown
from dumbwaiter.errors import MissingExtraError
from dumbwaiter.testing.servers import SERVERS, MissingServerError, ServerStartError

MODEL = f"{Path(__file__).parent / 'classifier' / 'network.py'}:Infer"
NAME = "infer"  # by default that of the class
#: Photographs that scikit-image brings along, and a word that one of the five best classes must hold.
PHOTOGRAPHS = {"chelsea": "cat", "coffee": "espresso", "rocket": "missile"}
START_WITHIN = 300.0

console = Console()


class DemoError(Exception):
    """The demo cannot go on."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--broker", choices=["sqlite", *SERVERS], default="sqlite", help="started here (default: sqlite)"
    )
    kind = parser.parse_args().broker
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # To be ended is to be interrupted: no server stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="dumbwaiter-demo-") as folder:
        state = Path(folder)
        try:
            with broker_of(kind, state) as broker:
                run(kind, broker, state)
        except KeyboardInterrupt:
            console.print("interrupted; everything is stopped")
            return 130
        except (MissingServerError, MissingExtraError, ServerStartError) as error:
            print(f"the demo cannot run on {kind}: {error}", file=sys.stderr)
            return 1
        except DemoError as error:
            console.print(f"\n[bold red]The demo failed:[/] {error}\n\nThe log of `dumbwaiter serve`:")
            log = state / "serve.log"
            console.print(log.read_text() if log.exists() else "(none)", markup=False, highlight=False)
            return 1
    return 0


@contextlib.contextmanager
def broker_of(kind, state):
    """The URL of a fresh broker; a server that it needs runs meanwhile."""
    if kind == "sqlite":
        yield f"sqlite:{state}/queue.db"
        return
    server = SERVERS[kind](state / kind)
    open_broker(server.url)  # before anything runs: its client library may be missing
    try:
        with console.status(f"starting {kind}"):
            server.start()
        os.environ.update(server.client_environment)
        yield server.url
    finally:
        server.stop()


def run(kind, broker, state):
    photographs = {name: as_jpeg(getattr(data, name)()) for name in PHOTOGRAPHS}
    blobs = f"file:{state}/blobs"
    with (state / "serve.log").open("w") as log:
        system = start(broker, blobs, log)
        try:
            with console.status("starting") as status:
                ready = wait_until_ready(system, status)
            console.print(f"[bold]gateway[/]  {ready['gateway']}", highlight=False)
            console.print(f"[bold]queue[/]    {shown(broker)}", highlight=False, soft_wrap=True)
            answers = []
            with console.status("sending photographs") as status, Client(broker, blobs=blobs) as client:
                for name, jpeg in photographs.items():
                    status.update(f"sending {name}.jpg ({len(jpeg) // 1024} KiB) by REST")
                    answers.append((name, "REST", *by_rest(ready["models"][NAME]["url"], jpeg)))
                    status.update(f"sending {name}.jpg ({len(jpeg) // 1024} KiB) straight to the queue")
                    answers.append((name, "queue", *by_queue(client, jpeg)))
            console.print(table_of(answers))
            for name, door, classes, *_ in answers:
                check(name, door, classes)
        finally:
            code = stop(system)
    if code != 0:
        raise DemoError(f"`dumbwaiter serve` ended with exit code {code}")
    console.print("Every photograph was recognised through both doors; everything is stopped.")
    scheme = broker.partition(":")[0]
    if scheme == "sqlite":
        console.print("[bold]make serve[/] leaves it running; then ask it yourself:\n")
    else:
        console.print(f"[bold]make serve[/] leaves it running over SQLite. Over a {kind} server of your own:\n")
        command = f"  .venv/bin/dumbwaiter serve examples/classifier/network.py:Infer --broker {scheme}://…"
        console.print(command, highlight=False, soft_wrap=True, markup=False)
        console.print("\nThen ask it yourself:\n")
    console.print("  curl --data-binary @examples/cat.jpg -H 'Content-Type: image/jpeg' \\", highlight=False)
    console.print("       http://127.0.0.1:8080/v1/models/infer/predictions", highlight=False)


def as_jpeg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def start(broker, blobs, log):
    command = [sys.executable, "-m", "dumbwaiter", "serve", MODEL, "--port", "0", "--json"]
    return subprocess.Popen([*command, "--broker", broker, "--blobs", blobs], stdout=subprocess.PIPE, stderr=log)


def wait_until_ready(system, status):
    """The "ready" event of `dumbwaiter serve --json`; shows what is still awaited."""
    awaited = {}
    watchdog = threading.Timer(START_WITHIN, system.terminate)
    watchdog.start()
    started_at = time.monotonic()
    try:
        for line in system.stdout:
            event = json.loads(line)
            if event["event"] == "ready":
                console.print(f"The network is loaded; all is ready after {time.monotonic() - started_at:.1f} s.")
                return event
            if event["event"] in ("started", "state"):
                awaited[event["name"]] = event.get("state", "starting")
                status.update(", ".join(f"{name} is {state}" for name, state in awaited.items() if state != "ready"))
            if event.get("state") == "failing" or event["event"] == "died":
                raise DemoError(f"{event['name']}: {event['reason']}")
    finally:
        watchdog.cancel()
    raise DemoError("`dumbwaiter serve` ended, or was not ready in time")


def by_rest(url, jpeg):
    """Classes, timings and total seconds through the gateway."""
    request = urllib.request.Request(url, data=jpeg, headers={"Content-Type": "image/jpeg"})
    started_at = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            prediction = json.load(response)
    except OSError as error:
        detail = error.read().decode() if hasattr(error, "read") else ""
        raise DemoError(f"{url}: {error} {detail}") from error
    total = time.perf_counter() - started_at
    metrics = prediction["metrics"]
    times = (metrics["queued_time"], metrics["batched_time"], metrics["predict_time"])
    return top(prediction["output"]), times, total


def by_queue(client, jpeg):
    """Classes, timings and total seconds straight on the queue."""
    started_at = time.perf_counter()
    message = Message(body=jpeg, content_type="image/jpeg", time=time.time(), subject=NAME)
    answer = client.predict_message(NAME, message)
    total = time.perf_counter() - started_at
    spent = timings_of(answer)
    return top(json.loads(raise_for_failure(answer).body)), (spent.queued, spent.batched, spent.device), total


def top(output):
    """The classes and their probabilities, the best first."""
    return [(entry["label"], entry["probability"]) for entry in output]


def table_of(answers):
    table = Table(
        title="The five best classes, and where the time went (ms)",
        caption="queued: waiting for the worker; batched: decoding and waiting for the device; device: the network",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("photograph")
    table.add_column("classes", no_wrap=True)
    for column in ("queued", "batched", "device", "total"):
        table.add_column(column, justify="right")
    for name, door, classes, times, total in answers:
        listed = "\n".join(f"{probability:6.1%}  {label.split(',')[0]}" for label, probability in classes)
        cells = [f"{seconds * 1000:.1f}" for seconds in (*times, total)]
        table.add_row(f"{name}.jpg\nby {door}", listed, *cells, end_section=True)
    return table


def check(name, door, classes):
    if len(classes) != 5 or not any(PHOTOGRAPHS[name] in label.lower() for label, _ in classes):
        raise DemoError(f"{name}.jpg through {door} is not recognised: expected {PHOTOGRAPHS[name]!r} in {classes}")


def stop(system):
    """Stop it as Ctrl-C would, and return its exit code."""
    if system.poll() is None:
        system.send_signal(signal.SIGINT)
    try:
        system.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        system.kill()
        system.communicate()
    return system.returncode


if __name__ == "__main__":
    sys.exit(main())
