"""A supervisor's audience, and workers for it to keep."""

from __future__ import annotations

from dumbwaiter.cli.supervisor import Plan


class Listener:
    """Remembers what a supervisor tells."""

    def __init__(self):
        self.deaths = []
        self.lines = []
        self.said_when_ready = {}
        self.gone = []

    def started(self, child):
        assert child.process.pid

    def reported(self, child):
        assert child.report.state
        if child.report.state == "ready":
            self.said_when_ready.setdefault(child.plan.name, list(self.lines))

    def said(self, child, line):
        self.lines.append(line)

    def died(self, child, why, delay):
        self.deaths.append((child.plan.name, why, delay))

    def left(self, child):
        self.gone.append(child.plan.name)


def worker(name, *arguments):
    return Plan(name, "slow", ["worker", "slow=light:Slow", *arguments], comes_and_goes=True)


def named(supervisor, name):
    return next(child for child in supervisor.children if child.plan.name == name)
