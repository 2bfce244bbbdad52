"""``dumbwaiter probe``: whether a runtime of this machine lives, for whoever restarts it."""

from __future__ import annotations

from pathlib import Path

import click

from dumbwaiter.cli.options import Command, current_settings, settings_options
from dumbwaiter.heartbeat import look


@click.command(cls=Command)
@click.argument("what", type=click.Choice(["live", "ready"]))
@settings_options
def probe(what: str) -> int:
    """Look at the sign of life that a runtime gives in the file that the setting `heartbeat` names.

    `live`: its event loop runs. `ready`: its model is loaded as well. The exit code is 0 if so, and 1 if not; what is
    wrong is said on standard error. Kubernetes asks this way, for neither of them listens anywhere.

    Examples:
      DUMBWAITER_HEARTBEAT=/run/dumbwaiter/heartbeat dumbwaiter probe live

    """
    settings = current_settings()
    if settings.heartbeat is None:
        raise click.UsageError("there is no heartbeat in the settings; write heartbeat = FILE, for the worker too")
    found = look(Path(settings.heartbeat))
    click.echo(f"{found.state}, {found.age:.1f} s ago")
    return 0 if what == "live" or found.state == "ready" else 1
