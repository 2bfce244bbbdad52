"""`make bench`: every ratio comes from one interleaved run against a bare reference; writes docs/benchmarks.md.

Usage: python benchmarks/run.py [--repeats 3] [--quick] [--out docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import io
import os
import platform
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import apsw  # noqa: E402 - the benchmarks' own folder must come first
from rich.console import Console  # noqa: E402

import backlog  # noqa: E402
import bare  # noqa: E402
import footprint  # noqa: E402
import rest  # noqa: E402
from system import drive, serving, warm  # noqa: E402

BODY = os.urandom(1024)
TRIES = 300
console = Console(stderr=True)


@dataclass
class Figures:
    """Everything measured, by name, one value a repeat."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, value: float) -> None:
        """One more repeat of *name*."""
        self.values[name].append(value)
        console.print(f"  {name}: {value:,.3f}")

    def median(self, name: str) -> float:
        """The median over the repeats."""
        return statistics.median(self.values[name])

    def ratio(self, name: str, reference: str) -> float:
        """The median over the repeats of *name* / *reference*, both of the same repeat."""
        pairs = zip(self.values[name], self.values[reference], strict=True)
        return statistics.median(mine / bare for mine, bare in pairs)

    def above(self, name: str, reference: str) -> float:
        """The median over the repeats of *name* - *reference*, both of the same repeat."""
        pairs = zip(self.values[name], self.values[reference], strict=True)
        return statistics.median(mine - bare for mine, bare in pairs)


def photograph() -> bytes:
    """A photograph as a JPEG of about 100 KB."""
    import numpy as np  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415
    from skimage import data  # noqa: PLC0415

    buffer = io.BytesIO()
    photo: np.ndarray[Any, Any] = data.chelsea()  # type: ignore[no-untyped-call]
    Image.fromarray(photo).resize((900, 600)).save(buffer, "JPEG", quality=91)
    return buffer.getvalue()


async def batchable(figures: Figures, scale: float) -> None:
    """A device that likes batches: 64 in flight, at most 16 at a time."""
    requests = int(3000 * scale)
    figures.add("batchable bare /s", bare.batchable(requests))
    for kind in ("sqlite", "memory"):
        async with serving(kind, "Batchable") as asker:
            await warm(asker, "batchable", BODY, "application/octet-stream", requests=200, in_flight=64)
            rate, _ = await drive(
                asker,
                "batchable",
                BODY,
                "application/octet-stream",
                requests=requests,
                in_flight=64,
                check=lambda answer: answer.body == BODY,
            )
        figures.add(f"batchable {kind} /s", rate)


async def overhead(figures: Figures, scale: float) -> None:
    """An echo of 1 KiB, every result checked: one in flight, and 64."""
    many = int(20_000 * scale)
    _, took = bare.echo_by_hand(TRIES, 1, BODY)
    figures.add("echo by hand p50 ms", statistics.median(took) * 1e3)
    rate, _ = bare.echo_by_hand(many, 64, BODY)
    figures.add("echo by hand /s", rate)
    for kind in ("sqlite", "memory"):
        async with serving(kind, "Echo") as asker:
            for in_flight, requests in ((1, TRIES), (64, many)):
                await warm(asker, "echo", BODY, "application/octet-stream", requests=500, in_flight=in_flight)
                rate, took = await drive(
                    asker,
                    "echo",
                    BODY,
                    "application/octet-stream",
                    requests=requests,
                    in_flight=in_flight,
                    check=lambda answer: answer.body == BODY,
                )
                if in_flight == 1:
                    figures.add(f"echo {kind} p50 ms", statistics.median(took) * 1e3)
                else:
                    figures.add(f"echo {kind} /s", rate)


async def picture(figures: Figures, scale: float) -> None:
    """A photograph: decode, small network, top-5; 32 in flight."""
    jpeg, requests = photograph(), int(1000 * scale)
    figures.add("picture bare /s", bare.picture(jpeg, requests))
    for kind in ("sqlite", "memory"):
        async with serving(kind, "Picture") as asker:
            await warm(asker, "picture", jpeg, "image/jpeg", requests=100, in_flight=32)
            rate, _ = await drive(
                asker,
                "picture",
                jpeg,
                "image/jpeg",
                requests=requests,
                in_flight=32,
                check=lambda answer: answer.body.startswith(b"[["),
            )
        figures.add(f"picture {kind} /s", rate)


async def through_rest(figures: Figures, scale: float) -> None:
    """The same through the REST door: echo, batchable, picture, and how soon a deferred request is accepted."""
    raw, jpeg = "application/octet-stream", photograph()
    many = int(15_000 * scale)
    echoes = rest.request_to("/v1/models/echo/predictions", BODY, raw)
    async with rest.bare_echo() as port:
        figures.add("REST bare echo /s", await rest.rate(port, echoes, requests=many, in_flight=64, check=_is_echo))
    for kind in ("sqlite", "memory"):
        async with rest.gateway(kind, "Echo") as port:
            await rest.warm(port, echoes)
            _, took = await rest.call(port, echoes, requests=TRIES, in_flight=1, check=_is_echo)
            figures.add(f"REST echo {kind} p50 ms", statistics.median(took) * 1e3)
            rate = await rest.rate(port, echoes, requests=many, in_flight=64, check=_is_echo)
            figures.add(f"REST echo {kind} /s", rate)
            deferred = rest.request_to("/v1/models/echo/predictions", BODY, raw, ["prefer: respond-async"])
            _, took = await rest.call(port, deferred, requests=TRIES, in_flight=1, check=_is_accepted)
            figures.add(f"REST 202 {kind} p50 ms", statistics.median(took) * 1e3)
        for model, body, content_type, requests, in_flight in (
            ("Batchable", BODY, raw, int(3000 * scale), 64),
            ("Picture", jpeg, "image/jpeg", int(1000 * scale), 32),
        ):
            name = model.lower()
            request = rest.request_to(f"/v1/models/{name}/predictions", body, content_type)
            async with rest.gateway(kind, model) as port:
                await rest.warm(port, request)
                rate = await rest.rate(port, request, requests=requests, in_flight=in_flight, check=_is_answered)
                figures.add(f"REST {name} {kind} /s", rate)


def _is_echo(status: int, body: bytes) -> bool:
    return status == 200 and body == BODY


def _is_accepted(status: int, body: bytes) -> bool:
    return status == 202 and b'"status":"starting"' in body


def _is_answered(status: int, body: bytes) -> bool:
    return status == 200 and len(body) > 0


@dataclass(frozen=True)
class Target:
    """One row of the page: a figure, or its ratio to a reference of the same repeat, and what we want it to be."""

    what: str
    figure: str
    form: str
    reference: str | None = None
    above: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    def row(self, figures: Figures) -> str:
        """The row as Markdown."""
        value = figures.median(self.figure)
        if self.reference:
            value = figures.ratio(self.figure, self.reference)
        elif self.above:
            value = figures.above(self.figure, self.above)
        measured = self.form.format(value, figures.median(self.figure))
        met, wanted = "\N{EN DASH}", "none"
        if self.at_least is not None:
            met, wanted = _yes_or_no(value >= self.at_least), f"≥ {self.at_least:g}"
        if self.at_most is not None:
            met, wanted = _yes_or_no(value <= self.at_most), f"≤ {self.at_most:g}"
        return f"| {self.what} | {measured} | {wanted} | {met} |"


def _yes_or_no(met: bool) -> str:
    return "yes" if met else "**no**"


OF_BARE = "{0:.3f} of the bare loop ({1:,.0f}/s)"
TARGETS = [
    Target("batchable model, sqlite", "batchable sqlite /s", OF_BARE, "batchable bare /s", at_least=0.95),
    Target("batchable model, memory", "batchable memory /s", OF_BARE, "batchable bare /s", at_least=0.95),
    Target("echo, one in flight, sqlite", "echo sqlite p50 ms", "p50 {0:.2f} ms", at_most=2.5),
    Target("echo, one in flight, memory", "echo memory p50 ms", "p50 {0:.2f} ms", at_most=1.0),
    Target(
        "echo, 64 in flight, sqlite",
        "echo sqlite /s",
        "{0:.3f} of the loop by hand ({1:,.0f}/s)",
        "echo by hand /s",
        at_least=0.25,
    ),
    Target("echo, 64 in flight, memory", "echo memory /s", "{0:,.0f}/s"),
    Target("picture, sqlite", "picture sqlite /s", OF_BARE, "picture bare /s", at_least=1.2),
    Target("picture, memory", "picture memory /s", OF_BARE, "picture bare /s", at_least=1.2),
    *(
        target
        for kind in ("sqlite", "memory")
        for target in (
            Target(
                f"REST: echo, one in flight, {kind}",
                f"REST echo {kind} p50 ms",
                "p50 {0:.2f} ms above the queue's ({1:.2f} ms)",
                above=f"echo {kind} p50 ms",
                at_most=3.0,
            ),
            Target(
                f"REST: echo, 64 in flight, {kind}",
                f"REST echo {kind} /s",
                "{0:.3f} of a bare handler ({1:,.0f}/s)",
                "REST bare echo /s",
                at_least=0.5,
            ),
            Target(
                f"REST: batchable model, {kind}",
                f"REST batchable {kind} /s",
                OF_BARE,
                "batchable bare /s",
                at_least=0.93,
            ),
            Target(f"REST: picture, {kind}", f"REST picture {kind} /s", OF_BARE, "picture bare /s", at_least=0.85),
        )
    ),
    Target("REST: accepted (202), sqlite", "REST 202 sqlite p50 ms", "p50 {0:.2f} ms", at_most=10.0),
    Target("a lone message waits, sqlite", "lone message ms", "p50 {0:.2f} ms", at_most=5.0),
    Target("an idle worker and asker, sqlite", "idle %", "{0:.2f} % of a core", at_most=1.0),
    Target(
        "with 1,000,000 waiting, sqlite",
        "million waiting /s",
        "{0:.2f} of an empty queue's rate ({1:,.0f}/s)",
        "empty /s",
        at_least=0.8,
    ),
    Target("file after 1,000,000 served, sqlite", "space of a million served MB", "{0:.0f} MB"),
    Target("gateway, resident", "gateway MB", "{0:.0f} MB", at_most=120.0),
    Target("consumer, resident", "consumer MB", "{0:.0f} MB", at_most=120.0),
    Target("import dumbwaiter", "import ms", "{0:.0f} ms", at_most=150.0),
]


def report(figures: Figures, repeats: int) -> str:
    """The page: what was measured, against what, and what we want it to be."""
    references = [name for name in figures.values if "bare" in name or name in ("echo by hand /s", "empty /s")]
    bares = "\n".join(f"| {name.removesuffix(' /s')} | {figures.median(name):,.0f}/s |" for name in references)
    return (
        (HERE / "page.md.in")
        .read_text()
        .format(
            table="\n".join(target.row(figures) for target in TARGETS),
            bares=bares,
            machine=machine(f"SQLite {apsw.sqlite_lib_version()}"),
            repeats=repeats,
            by_hand=figures.median("echo by hand p50 ms"),
        )
    )


def machine(*programs: str) -> str:
    """The machine in one paragraph, with *programs* and their versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024 / 1024
    command = ["git", "rev-parse", "--short", "HEAD"]
    revision = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE).stdout.strip()
    return (
        f"Machine: {len(names)} x {names[0] if names else platform.machine()}, {memory:.0f} GiB, {platform.system()} "
        f"{platform.release()}; {', '.join((f'Python {platform.python_version()}', *programs))}; "
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, revision {revision or 'unknown'}."
    )


async def embedded(figures: Figures, scale: float) -> None:
    """The embedded broker by itself: idle, with a lone message, with a million waiting."""
    await backlog.lone_messages(figures.add)
    await backlog.with_many_waiting(figures.add, scale)


CASES: dict[str, Callable[..., object]] = {
    "batchable": batchable,
    "overhead": overhead,
    "picture": picture,
    "rest": through_rest,
    "embedded": embedded,
}


def main() -> None:
    """Run all cases, interleaved, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests: to see that it works")
    parser.add_argument("--only", choices=sorted(CASES), help="one case, without writing the page")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "benchmarks.md")
    options = parser.parse_args()
    figures, scale = Figures(), 0.1 if options.quick else 1.0
    for repeat in range(options.repeats):
        for name, case in CASES.items():
            if options.only in (None, name):
                console.print(f"[bold]{name}[/bold], repeat {repeat + 1} of {options.repeats}")
                asyncio.run(case(figures, scale))  # type: ignore[arg-type]
    if options.only is None:
        footprint.measure(figures.add)
        options.out.write_text(report(figures, options.repeats))
        console.print(f"written to {options.out}")


if __name__ == "__main__":
    main()
