"""``dumbwaiter doctor``."""

from __future__ import annotations

import asyncio

import click

from dumbwaiter.brokers import open_broker, shown
from dumbwaiter.brokers.findings import Finding, of_contract, worst
from dumbwaiter.cli.options import Command, current_settings, json_option, settings_options
from dumbwaiter.cli.output import print_json

PATIENCE = 30.0
"""A server that takes longer than so many seconds to answer is not well."""


@click.command(cls=Command)
@click.argument("url", required=False)
@click.option("--longest-run", type=float, metavar="SECONDS", help="How long the longest run of a model takes.")
@json_option
@settings_options
def doctor(url: str | None, longest_run: float | None, as_json: bool) -> int:
    """Say what the broker at URL guarantees as it is configured, and what to change (by default the settings' broker).

    Each line is ok, a note, a warning, or a danger: what will lose confirmed messages when something fails that does
    fail. The exit code is 1 when there is a danger.

    Examples:
      dumbwaiter doctor
      dumbwaiter doctor redis://queue.example.com:6379/0 --longest-run 600
      dumbwaiter doctor --json nats://127.0.0.1:4222

    """
    settings = current_settings()
    findings = asyncio.run(_examine(url or settings.broker, settings.lock_duration, longest_run))
    if as_json:
        print_json({"broker": shown(url or settings.broker), "worst": worst(findings), "findings": findings})
    else:
        click.echo(f"broker {shown(url or settings.broker)}")
        for finding in findings:
            _print(finding)
    return 1 if worst(findings) == "danger" else 0


async def _examine(url: str, lock_duration: float, longest_run: float | None) -> list[Finding]:
    async with asyncio.timeout(PATIENCE), open_broker(url, lock_duration=lock_duration) as broker:
        return [*of_contract(broker), *await broker.examine(longest_run=longest_run)]


def _print(finding: Finding) -> None:
    color = {"danger": "red", "warning": "yellow"}.get(finding.level)
    level = click.style(f"{finding.level:8}", fg=color, bold=finding.level == "danger")
    click.echo(f"  {level} {finding.subject}: {finding.text}")
    if finding.remedy:
        click.echo(f"  {'':8} -> {finding.remedy}")
