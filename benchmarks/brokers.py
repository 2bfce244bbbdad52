"""`make bench BROKER=redis`: dumbwaiter over a real server against loops by hand; writes docs/benchmarks-brokers.md.

Usage: python benchmarks/brokers.py --broker redis|valkey|nats|rabbitmq [--repeats 3] [--quick] [--out FILE]
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import uvloop  # noqa: E402 - the benchmarks' own folder must come first

import bare  # noqa: E402
import by_hand  # noqa: E402
from dumbwaiter.errors import MissingExtraError  # noqa: E402
from dumbwaiter.testing.servers import (  # noqa: E402
    SERVERS,
    LocalServer,
    MissingServerError,
    NatsServer,
    RabbitmqServer,
    RedisServer,
    redis_program,
    valkey_program,
)
from run import BODY, OF_BARE, TRIES, Figures, Target, console, machine  # noqa: E402
from system import drive, serving, warm  # noqa: E402

_SECTION = re.compile(r"^## (\w+)\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
RAW = "application/octet-stream"
BATCHED = 3000
EVERYSEC = ("--appendonly", "yes", "--appendfsync", "everysec")
OF_HAND = "{0:.3f} of the loop by hand ({1:,.0f}/s)"
TIMES_HAND = "{0:.2f} times the loop by hand ({1:.2f} ms)"

#: Broker -> how it is configured -> such a server, in a folder.
SETTINGS: dict[str, dict[str, Callable[[Path], LocalServer]]] = {
    "redis": {
        "appendfsync always": SERVERS["redis"],
        "appendfsync everysec": lambda folder: RedisServer(redis_program(), folder, *EVERYSEC),
    },
    "valkey": {
        "appendfsync always": SERVERS["valkey"],
        "appendfsync everysec": lambda folder: RedisServer(valkey_program(), folder, *EVERYSEC),
    },
    "nats": {
        "sync_interval: always": NatsServer,
        "sync_interval: 2m, the default": lambda folder: NatsServer(folder, jetstream="sync_interval: 2m"),
    },
    "rabbitmq": {"quorum queues": RabbitmqServer},
}
CLIENTS = {
    "redis": ("redis", "hiredis"),
    "valkey": ("redis", "hiredis"),
    "nats": ("nats-py",),
    "rabbitmq": ("aio-pika", "aiormq"),
}
#: Of the loop's rate by hand, with 64 in flight.
AT_LEAST = {"redis": 0.35, "valkey": 0.35, "nats": 0.5, "rabbitmq": 0.7}
#: Requests in the run with 64 in flight: some seconds.
MANY = {"redis": 15_000, "valkey": 15_000, "nats": 6000, "rabbitmq": 6000}


async def measure(figures: Figures, broker: str, setting: str, server: LocalServer, scale: float) -> None:
    """One repeat against *server*: by hand and by dumbwaiter in turns."""
    many = int(MANY[broker] * scale)
    for in_flight, requests in ((1, TRIES), (64, many)):
        async with by_hand.serving(broker, server.url) as caller:
            await by_hand.ask(caller, requests=500, in_flight=in_flight, body=BODY)
            rate, took = await by_hand.ask(caller, requests=requests, in_flight=in_flight, body=BODY)
        add(figures, f"by hand, {setting}", in_flight, rate, took)
        rate, took = await through_dumbwaiter(server, "Echo", requests, in_flight)
        add(figures, f"echo, {setting}", in_flight, rate, took)
    rate, _ = await through_dumbwaiter(server, "Batchable", int(BATCHED * scale), 64)
    figures.add(f"batchable, {setting} /s", rate)


def synced_write(folder: Path) -> float:
    """Milliseconds that the disk takes for 1 KiB: what is durable cannot be faster, and neighbours make it slower."""
    took = []
    with (folder / "synced").open("wb", buffering=0) as file:
        for _ in range(100):
            started = time.perf_counter()
            file.write(BODY)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - started)
    return statistics.median(took) * 1e3


async def through_dumbwaiter(
    server: LocalServer, model: str, requests: int, in_flight: int
) -> tuple[float, list[float]]:
    """Requests per second and each one's seconds, with a worker process of its own."""
    async with serving(server.url, model) as asker:
        await warm(asker, model.lower(), BODY, RAW, requests=500, in_flight=in_flight)
        return await drive(
            asker,
            model.lower(),
            BODY,
            RAW,
            requests=requests,
            in_flight=in_flight,
            check=lambda answer: answer.body == BODY,
        )


def add(figures: Figures, what: str, in_flight: int, rate: float, took: list[float]) -> None:
    """The median with one in flight, else the rate."""
    if in_flight == 1:
        figures.add(f"{what} p50 ms", statistics.median(took) * 1e3)
    else:
        figures.add(f"{what} /s", rate)


def targets(broker: str, setting: str) -> list[Target]:
    """What is looked at with that *setting*."""
    echo, hand = f"echo, {setting}", f"by hand, {setting}"
    least = AT_LEAST[broker]
    return [
        Target(f"echo, one in flight, {setting}", f"{echo} p50 ms", TIMES_HAND, f"{hand} p50 ms", at_most=2.5),
        Target(f"echo, 64 in flight, {setting}", f"{echo} /s", OF_HAND, f"{hand} /s", at_least=least),
        Target(f"batchable model, {setting}", f"batchable, {setting} /s", OF_BARE, "bare /s", at_least=0.95),
        Target(f"by hand: one in flight, {setting}", f"{hand} p50 ms", "p50 {0:.2f} ms"),
        Target(f"by hand: 64 in flight, {setting}", f"{hand} /s", "{0:,.0f}/s"),
    ]


def section(broker: str, product: str, figures: Figures, repeats: int) -> str:
    """What was measured of *broker*, as Markdown."""
    clients = [f"{name} {version(name)}" for name in CLIENTS[broker]]
    rows = [target.row(figures) for setting in SETTINGS[broker] for target in targets(broker, setting)]
    rows.append(Target("the disk: a synced write of 1 KiB", "synced write ms", "p50 {0:.2f} ms").row(figures))
    how = f"{machine(product, *clients)} Medians of {repeats}."
    return "\n".join((f"## {broker}", "", how, "", "| what | measured | target | met |", "|---|---|---|---|", *rows))


def product_of(server: LocalServer) -> str:
    """Name and version of the program that runs."""
    if isinstance(server, RabbitmqServer):
        return f"RabbitMQ {server.control('version').strip()}"
    said = subprocess.run((server.program, "--version"), capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=?(\d+\.\d+\.\d+)", said)
    if found is None:
        raise ValueError(f"{server.program} --version says no version: {said}")
    return f"{Path(server.program).name} {found[1]}"


def write(page: Path, broker: str, text: str) -> None:
    """Put the section of *broker* into the page, and leave those of others."""
    before = page.read_text() if page.exists() else ""
    sections = {found[1]: found[0].strip() for found in _SECTION.finditer(before)}
    sections[broker] = text
    head = (HERE / "brokers.page.md.in").read_text().strip()
    page.write_text("\n\n".join((head, *(sections[name] for name in SETTINGS if name in sections))) + "\n")


def run(broker: str, repeats: int, scale: float) -> tuple[str, Figures]:
    """The product's name and version, and all figures."""
    figures, product = Figures(), ""
    for repeat in range(repeats):
        figures.add("bare /s", bare.batchable(int(BATCHED * scale)))
        for setting, start in SETTINGS[broker].items():
            console.print(f"[bold]{broker}, {setting}[/bold], repeat {repeat + 1} of {repeats}")
            with tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-") as folder:
                server = start(Path(folder))
                try:
                    server.start()
                    figures.add("synced write ms", synced_write(Path(folder)))
                    product = product or product_of(server)
                    uvloop.run(measure(figures, broker, setting, server, scale))
                finally:
                    server.stop()
    return product, figures


def main() -> int:
    """Measure one broker, and write its section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=sorted(SETTINGS), required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests: to see that it works")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "benchmarks-brokers.md")
    options = parser.parse_args()
    # However it is ended, also in the background of a shell, no process stays behind.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        product, figures = run(options.broker, options.repeats, 0.1 if options.quick else 1.0)
    except (MissingServerError, MissingExtraError) as error:
        print(f"cannot measure {options.broker}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    write(options.out, options.broker, section(options.broker, product, figures, options.repeats))
    console.print(f"written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
