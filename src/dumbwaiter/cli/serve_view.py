"""What ``dumbwaiter serve`` shows: progress while models load, the addresses when all is ready, and every death.

Addresses go to stdout, all else to stderr. With --json each event is one line of JSON on stdout.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dumbwaiter.brokers import shown
from dumbwaiter.cli.output import duration, print_json_line
from dumbwaiter.cli.ports import is_all
from dumbwaiter.cli.sample_request import curl_line, prediction_url
from dumbwaiter.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from dumbwaiter.autoscale import Scaled
    from dumbwaiter.cli.status_pipe import Report
    from dumbwaiter.cli.supervisor import Child
    from dumbwaiter.config import Settings
    from dumbwaiter.models.contract import ModelSpec

#: A picture to try a model with; the first that exists.
_PICTURES = ("cat.jpg", "examples/cat.jpg")
#: The states of a child that is not ready, in the words of the progress line.
_WORDS = {"failing": "fails and tries again", "draining": "is stopping"}


class ServeView:
    """The audience of a Supervisor or OneProcess; *children* is theirs. A context manager, for the progress line."""

    def __init__(self, settings: Settings, specs: Sequence[ModelSpec], *, as_json: bool) -> None:
        from rich.console import Console  # noqa: PLC0415 - only serve shows progress

        self.children: list[Child] = []
        self._settings = settings
        self._specs = specs
        self._as_json = as_json
        self._console: Console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._last: dict[str, tuple[str, str]] = {}
        self._told_to_wait: set[str] = set()
        self._started_at = time.monotonic()
        self._announced = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress = _progress_line(self._console, self._waiting_for())
            self._progress.start()
        else:
            self._line(self._title())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_progress()
        self._event("stopped", {})
        if error is None:
            self._line("stopped")

    def started(self, child: Child) -> None:
        """A process was started."""
        self._last.pop(child.plan.name, None)
        self._told_to_wait.discard(child.plan.name)
        pid = child.process.pid if child.process else None
        self._event("started", {"name": child.plan.name, "pid": pid})

    def reported(self, child: Child) -> None:
        """A process said how it is; it may say the same again, as a model that fails to load does at each try."""
        name, report = child.plan.name, child.report
        news = (report.state, report.reason)
        if report.state != "starting" and self._last.get(name) != news:
            self._event("state", {"name": name, "state": report.state, "reason": report.reason})
            if report.state == "failing":
                self._line(f"{name} cannot serve yet and is tried again: {report.reason}")
            elif _waits(report):
                self._tell_wait(name, report.reason)
            self._last[name] = news
        self._announce()
        self._update_progress(self._waiting_for())

    def said(self, child: Child, line: str) -> None:
        """A process wrote a line."""
        prefix = "" if self._settings.log_format == "json" else f"{child.plan.name} | "
        self._line(f"{prefix}{line}")

    def died(self, child: Child, why: str, delay: float | None) -> None:
        """A process died and is started again after *delay* seconds, or given up on."""
        self._event("died", {"name": child.plan.name, "reason": why, "restart_in": delay})
        then = "giving up" if delay is None else f"starting it again in {duration(delay)}"
        self._line(f"{child.plan.name} {why}; {then}")

    def left(self, child: Child) -> None:
        """A worker that was told to retire has ended."""
        self._event("left", {"name": child.plan.name})
        self._announce()
        self._update_progress(self._waiting_for())

    def scaled(self, news: Scaled) -> None:
        """A model has more workers now, or fewer."""
        self._event(
            "scaled",
            {
                "model": news.model,
                "from": news.before,
                "to": news.after,
                "why": news.why,
                "work": news.work,
                "offered": news.offered,
            },
        )
        self._line(
            f"{news.model}: {news.before} -> {news.after} workers ({news.why}; work {duration(news.work)}, load"
            f" {news.offered:.3g})"
        )

    def stopping(self, *, hurry: bool) -> None:
        """All is told to stop; *hurry*: for the second time."""
        self._event("stopping", {"hurry": hurry})
        self._line("hurrying" if hurry else "stopping: requests under way may finish; Ctrl-C again hurries")
        self._update_progress("stopping")

    # --- how it is shown ---

    def _line(self, text: str) -> None:
        self._console.print(text)

    def _tell_wait(self, name: str, reason: str) -> None:
        """Once for each start: with each look the reason has other numbers in it. Programs have their event."""
        if not self._progress and not self._as_json and name not in self._told_to_wait:
            self._told_to_wait.add(name)
            self._line(f"{name} waits: {printable(reason)}")

    def _event(self, event: str, facts: dict[str, Any]) -> None:
        if self._as_json:
            print_json_line({"event": event, **facts})

    def _update_progress(self, text: str) -> None:
        if self._progress:
            self._progress.update(self._progress.task_ids[0], description=text)

    def _stop_progress(self) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None

    def _title(self) -> str:
        return f"loading {', '.join(spec.name for spec in self._specs)}"

    def _waiting_for(self) -> str:
        waiting = [child for child in self.children if child.report.state != "ready"]
        states = [f"{one.plan.name} {_words(one.report)}" for one in waiting]
        return ", ".join(states) or f"starting {', '.join(spec.name for spec in self._specs)}"

    def _announce(self) -> None:
        """Once all is ready; for people also before, once it is clear that some models can be used and others fail."""
        states = {child.report.state for child in self.children}
        serving = [child for child in self.children if child.report.state == "ready" and child.plan.model]
        is_open = any(child.report.state == "ready" for child in self.children if child.plan.role == "gateway")
        if states == {"ready"} and self._announced != "all":
            self._announced = "all"
            self._stop_progress()
            took = duration(time.monotonic() - self._started_at)
            self._tell_addresses(f"dumbwaiter is ready after {took}", self.children)
        elif states == {"ready", "failing"} and is_open and serving and not self._announced and not self._as_json:
            self._announced = "some"
            failing = ", ".join(child.plan.name for child in self.children if child.report.state == "failing")
            self._tell_addresses(f"dumbwaiter serves what it can; {failing} cannot be loaded yet", serving)

    def _tell_addresses(self, title: str, children: Sequence[Child]) -> None:
        address = next(child.report.address for child in self.children if child.plan.role == "gateway")
        signatures = {child.plan.model: child.report.signature for child in children}
        served = [spec for spec in self._specs if spec.name in signatures]
        picture = next((name for name in _PICTURES if Path(name).is_file()), "YOUR.jpg")
        options, broker = self._settings.gateway, shown(self._settings.broker)
        curls = {
            spec.name: curl_line(
                address, spec.name, signatures[spec.name], picture=picture, needs_key=options.needs_keys
            )
            for spec in served
        }
        if self._as_json:
            models = {
                spec.name: {
                    "target": spec.target,
                    "url": prediction_url(address, spec.name),
                    "curl": curls[spec.name],
                    "signature": signatures[spec.name],
                }
                for spec in served
            }
            pids = {child.plan.name: child.process.pid for child in self.children if child.process}
            self._event("ready", {"gateway": address, "models": models, "pids": pids, "broker": broker})
            return
        listens = f"{address} (listens on {options.host})" if is_all(options.host) else address
        facts = [("gateway", listens), *((spec.name, f"{spec.target} in {spec.project}") for spec in served)]
        facts.append(("broker", broker))
        width = max(12, *(len(name) for name, _ in facts))
        lines = [title, "", *(f"  {name:<{width}} {value}" for name, value in facts)]
        lines += ["", "Try it:"] if served else []
        lines += [f"  {curl}" for curl in curls.values()]
        devices = {model.device for name, model in self._settings.models.items() if name in signatures}
        lines += ["", *(["dumbwaiter devices shows who has what."] if devices - {"auto", "none"} else [])]
        lines.append("Ctrl-C stops it.")
        print("\n".join(lines), flush=True)


def _waits(report: Report) -> bool:
    """Whether the child waits for memory of its device: nothing else is a reason to be only loading."""
    return report.state == "loading" and bool(report.reason)


def _words(report: Report) -> str:
    return "waits for memory" if _waits(report) else _WORDS.get(report.state, f"is {report.state}")


def _progress_line(console: Console, text: str) -> Progress:
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - on terminals

    spinner, words = SpinnerColumn(), TextColumn("{task.description}", markup=False)
    progress = Progress(spinner, words, TimeElapsedColumn(), console=console, transient=True)
    progress.add_task(text)
    return progress
