"""What ``dumbwaiter serve`` shows: progress while models load, the addresses when all is ready, and every death.

Addresses go to stdout, all else to stderr. With --json each event is one line of JSON on stdout.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from dumbwaiter.brokers import shown
from dumbwaiter.cli.output import duration, print_json_line
from dumbwaiter.cli.ports import is_all
from dumbwaiter.cli.sample_request import curl_line, prediction_url
from dumbwaiter.policies.backing_off import back_off
from dumbwaiter.policies.retrying import LONGEST_DELAY
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
#: Seconds after which the reason of a failure is repeated: the first time, and at the most; doubling between.
_REPEATED_AFTER = (30.0, 300.0)


@dataclass(slots=True)
class _Failure:
    """Why a child fails, *since* when, and when that was told, how often."""

    reason: str
    since: float
    told_at: float
    times_told: int = 1

    def is_due(self, now: float) -> bool:
        """Whether it was told so long ago that it should be repeated: ever more rarely."""
        first, longest = _REPEATED_AFTER
        return now - self.told_at >= back_off(self.times_told, first=first, longest=longest)


class ServeView:
    """The audience of a Supervisor or OneProcess; *children* is theirs. A context manager, for the progress line.

    *clock* tells seconds, and only goes on.
    """

    def __init__(
        self,
        settings: Settings,
        specs: Sequence[ModelSpec],
        *,
        as_json: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from rich.console import Console  # noqa: PLC0415 - only serve shows progress

        self.children: list[Child] = []
        self._settings = settings
        self._specs = specs
        self._as_json = as_json
        self._console: Console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._last: dict[str, tuple[str, str]] = {}
        self._told_to_wait: set[str] = set()
        self._failures: dict[str, _Failure] = {}
        # Of models, also of those whose workers have left: what each takes that was ready once, and which ones failed.
        self._signatures: dict[str, dict[str, Any]] = {}
        self._failed: set[str] = set()
        self._clock = clock
        self._started_at = clock()
        self._announced: Literal["", "some", "all"] = ""
        self._addressed: set[str] = set()

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
        self._failures.pop(child.plan.name, None)
        self._told_to_wait.discard(child.plan.name)
        pid = child.process.pid if child.process else None
        self._event("started", {"name": child.plan.name, "pid": pid})

    def reported(self, child: Child) -> None:
        """A process said how it is; it may say the same again, as a model that fails to load does at each try."""
        name, report = child.plan.name, child.report
        news = (report.state, report.reason)
        if report.state != "starting" and self._last.get(name) != news:
            self._event("state", {"name": name, "state": report.state, "reason": report.reason})
            if _waits(report):
                self._tell_wait(name, report.reason)
            self._last[name] = news
        if report.state == "failing":
            self._tell_failure(name, report.reason)
        self._remember(child)
        self._announce()
        self._update_progress(self._waiting_for())

    def said(self, child: Child, line: str) -> None:
        """A process wrote a line."""
        prefix = "" if self._settings.log_format == "json" else f"{child.plan.name} | "
        self._line(f"{prefix}{line}")

    def died(self, child: Child, why: str, delay: float | None) -> None:
        """A process died and is started again after *delay* seconds, or given up on."""
        self._event("died", {"name": child.plan.name, "reason": why, "restart_in": delay})
        if child.plan.model:
            self._failed.add(child.plan.model)
        then = "giving up" if delay is None else f"starting it again in {duration(delay)}"
        self._line(f"{child.plan.name} {why}; {then}")

    def left(self, child: Child) -> None:
        """A worker that was told to retire has ended."""
        name, model = child.plan.name, child.plan.model
        self._event("left", {"name": name})
        if self._failures.pop(name, None) and model not in {other.plan.model for other in self.children}:
            self._line(f"{model} is tried again when work waits for it")
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

    def _tell_failure(self, name: str, reason: str) -> None:
        """With each new reason; the same one is repeated at one of the tries now and then, without the traceback."""
        now, known = self._clock(), self._failures.get(name)
        again = f"is tried again within {duration(LONGEST_DELAY)}"
        if known is None or known.reason != reason:
            self._failures[name] = _Failure(reason, since=now if known is None else known.since, told_at=now)
            self._line(f"{name} cannot serve and {again}: {reason}")
        elif known.is_due(now):
            known.told_at, known.times_told = now, known.times_told + 1
            why, since = reason.partition("\n")[0], duration(now - known.since)
            self._line(f"{name} still cannot serve after {since} and {again}: {why}")

    def _remember(self, child: Child) -> None:
        model, report = child.plan.model, child.report
        if report.state == "ready":
            self._failures.pop(child.plan.name, None)
            if model:
                self._signatures[model] = report.signature
        elif report.state == "failing" and model:
            self._failed.add(model)

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
        """Once all is ready; for people also before, once it is clear that some models can be used and others fail.

        One that failed and was never ready is not ready for having no worker any more.
        """
        states, unloaded = {child.report.state for child in self.children}, self._unloaded()
        if states == {"ready"}:
            self._stop_progress()
        if states == {"ready"} and not unloaded:
            if self._announced != "all":
                title = f"dumbwaiter is ready after {duration(self._clock() - self._started_at)}"
                self._tell_ready(title, self._signatures)
                self._announced = "all"
        elif states <= {"ready", "failing"} and not self._announced and not self._as_json:
            is_open = any(child.report.state == "ready" for child in self.children if child.plan.role == "gateway")
            if is_open and (usable := self._usable()):
                self._tell_ready(f"dumbwaiter serves what it can; {', '.join(unloaded)} cannot be loaded", usable)
                self._announced = "some"

    def _unloaded(self) -> list[str]:
        """The names of the workers that fail, and of the models of which one did that was never ready and has left."""
        failing = [child.plan.name for child in self.children if child.report.state == "failing"]
        gone = self._failed - self._signatures.keys() - {child.plan.model for child in self.children}
        return failing + [spec.name for spec in self._specs if spec.name in gone]

    def _usable(self) -> set[str]:
        """The models that were ready, without those whose workers all fail now."""
        ready, failing = (
            {child.plan.model for child in self.children if child.report.state == state}
            for state in ("ready", "failing")
        )
        return self._signatures.keys() - (failing - ready)

    def _tell_ready(self, title: str, models: Collection[str]) -> None:
        """Where *models* can be reached; to people who know the addresses of some already, only those of the others."""
        address = next(child.report.address for child in self.children if child.plan.role == "gateway")
        told = [spec for spec in self._specs if spec.name in models and spec.name not in self._addressed]
        self._addressed.update(spec.name for spec in told)
        curls = {spec.name: self._curl(address, spec.name) for spec in told}
        if self._as_json:
            self._tell_programs(address, told, curls)
            return
        facts = self._facts(address, told)
        width = max((12, *(len(name) for name, _ in facts)))
        lines = [title, "", *(f"  {name:<{width}} {value}" for name, value in facts)] if facts else [title]
        if told:
            lines += ["", "Try it:", *(f"  {curl}" for curl in curls.values())]
        if not self._announced:
            lines += ["", *self._hints(models)]
        print("\n".join(lines), flush=True)

    def _curl(self, address: str, name: str) -> str:
        picture = next((path for path in _PICTURES if Path(path).is_file()), "YOUR.jpg")
        needs_key = self._settings.gateway.needs_keys
        return curl_line(address, name, self._signatures[name], picture=picture, needs_key=needs_key)

    def _tell_programs(self, address: str, told: Sequence[ModelSpec], curls: dict[str, str]) -> None:
        models = {
            spec.name: {
                "target": spec.target,
                "url": prediction_url(address, spec.name),
                "curl": curls[spec.name],
                "signature": self._signatures[spec.name],
            }
            for spec in told
        }
        pids = {child.plan.name: child.process.pid for child in self.children if child.process}
        broker = shown(self._settings.broker)
        self._event("ready", {"gateway": address, "models": models, "pids": pids, "broker": broker})

    def _facts(self, address: str, told: Sequence[ModelSpec]) -> list[tuple[str, str]]:
        served = [(spec.name, f"{spec.target} in {spec.project}") for spec in told]
        if self._announced:
            return served
        host = self._settings.gateway.host
        listens = f"{address} (listens on {host})" if is_all(host) else address
        known = self._signatures.keys() | self._failed
        idle = [(spec.name, "has no worker until work waits") for spec in self._specs if spec.name not in known]
        return [("gateway", listens), *served, *idle, ("broker", shown(self._settings.broker))]

    def _hints(self, models: Collection[str]) -> list[str]:
        devices = {model.device for name, model in self._settings.models.items() if name in models}
        about_devices = ["dumbwaiter devices shows who has what."] if devices - {"auto", "none"} else []
        return [*about_devices, "Ctrl-C stops it."]


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
