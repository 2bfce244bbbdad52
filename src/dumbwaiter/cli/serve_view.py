"""What ``dumbwaiter serve`` shows: progress while models load, the addresses when all is ready, and every death.

Addresses go to stdout, all else to stderr. With --json each event is one line of JSON on stdout.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dumbwaiter.cli.output import duration, print_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from dumbwaiter.cli.supervisor import Child
    from dumbwaiter.config import Settings
    from dumbwaiter.models.contract import ModelSpec


class ServeView:
    """The audience of a Supervisor or OneProcess; *children* is theirs. A context manager, for the progress line."""

    def __init__(self, settings: Settings, specs: Sequence[ModelSpec], *, as_json: bool) -> None:
        from rich.console import Console  # noqa: PLC0415 - only serve shows progress

        self.children: list[Child] = []
        self._settings = settings
        self._specs = specs
        self._as_json = as_json
        self._console: Console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._progress: Status | None = None
        self._started_at = time.monotonic()
        self._announced = False

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress = self._console.status(self._waiting_for())
            self._progress.start()
        else:
            self._line(f"loading {', '.join(spec.name for spec in self._specs)}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_progress()
        self._event("stopped", {})

    def started(self, child: Child) -> None:
        """A process was started."""
        pid = child.process.pid if child.process else None
        self._event("started", {"name": child.plan.name, "pid": pid})

    def reported(self, child: Child) -> None:
        """A process said how it is."""
        report = child.report
        facts = {"name": child.plan.name, "state": report.state, "reason": report.reason}
        if report.state != "starting":
            self._event("state", facts)
        if report.state == "failing":
            self._line(f"{child.plan.name} cannot serve: {report.reason}")
        if self._progress:
            self._progress.update(self._waiting_for())
        if not self._announced and all(child.report.state == "ready" for child in self.children):
            self._announced = True
            self._stop_progress()
            self._announce()

    def said(self, child: Child, line: str) -> None:
        """A process wrote a line."""
        prefix = "" if self._settings.log_format == "json" else f"{child.plan.name} | "
        self._line(f"{prefix}{line}")

    def died(self, child: Child, why: str, delay: float | None) -> None:
        """A process died and is started again after *delay* seconds, or given up on."""
        self._event("died", {"name": child.plan.name, "reason": why, "restart_in": delay})
        then = "giving up" if delay is None else f"starting it again in {duration(delay)}"
        self._line(f"{child.plan.name} {why}; {then}")

    # --- how it is shown ---

    def _line(self, text: str) -> None:
        self._console.print(text)

    def _event(self, event: str, facts: dict[str, Any]) -> None:
        if self._as_json:
            print_json({"event": event, **facts})

    def _stop_progress(self) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None

    def _waiting_for(self) -> str:
        waiting = [child for child in self.children if child.report.state != "ready"]
        states = [f"{child.plan.name} is {child.report.state}" for child in waiting]
        return ", ".join(states) or f"starting {', '.join(spec.name for spec in self._specs)}"

    def _announce(self) -> None:
        address = next(child.report.address for child in self.children if child.plan.role == "gateway")
        signatures = {child.plan.role: child.report.signature for child in self.children}
        if self._as_json:
            models = {
                spec.name: {
                    "target": spec.target,
                    "url": prediction_url(address, spec.name),
                    "curl": curl_line(address, spec.name, signatures[spec.name]),
                    "signature": signatures[spec.name],
                }
                for spec in self._specs
                if spec.name in signatures
            }
            pids = {child.plan.name: child.process.pid for child in self.children if child.process}
            self._event("ready", {"gateway": address, "models": models, "pids": pids, "broker": self._settings.broker})
            return
        took = duration(time.monotonic() - self._started_at)
        lines = [f"dumbwaiter is ready after {took}", "", f"  {'gateway':<12} {address}"]
        lines += [f"  {spec.name:<12} {spec.target} in {spec.project}" for spec in self._specs]
        lines += [f"  {'broker':<12} {self._settings.broker}", ""]
        lines += [f"  {curl_line(address, spec.name, signatures.get(spec.name, {}))}" for spec in self._specs]
        lines += ["", "Ctrl-C stops it."]
        print("\n".join(lines), flush=True)


def prediction_url(address: str, model: str) -> str:
    """Where predictions of *model* are asked for."""
    return f"{address}/v1/models/{model}/predictions"


def curl_line(address: str, model: str, signature: dict[str, Any]) -> str:
    """A command that asks *model* for a prediction, by what its *signature* says it takes."""
    kind = str(signature.get("input", ""))
    url = shlex.quote(prediction_url(address, model))
    if "image" in kind.lower():
        return f"curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' {url}"
    if kind == "str":
        return f"curl --data-binary 'some text' -H 'Content-Type: text/plain' {url}"
    return f"curl -d '{{\"input\": …}}' -H 'Content-Type: application/json' {url}"
