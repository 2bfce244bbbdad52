"""``dumbwaiter deploy systemd``: this project for a machine without containers."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dumbwaiter.cli.deploy_image import put, tell_hidden
from dumbwaiter.cli.deploy_measured import measured_of, unmeasured_option
from dumbwaiter.cli.options import Command, current_settings, settings_options


@click.command(cls=Command)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    show_default=True,
    default="systemd",
    help="Where the files are written.",
)
@click.option(
    "--prefix",
    default="/opt/dumbwaiter",
    show_default=True,
    metavar="FOLDER",
    help="Virtual environment of that machine; the project is in FOLDER/app.",
)
@unmeasured_option
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if the folder is not up to date.")
@settings_options
def systemd(output: Path, prefix: str, unmeasured: bool, check: bool) -> int:
    """Render units of systemd for one machine: gateway, courier, the workers of each model, and a target for all.

    They run as a user of their own that may write into two folders only and sees no device but the GPUs. A worker gets
    as long to stop as its batches were measured to take.

    Examples:
      dumbwaiter deploy systemd
      dumbwaiter deploy systemd --prefix /srv/kitchen --broker redis://127.0.0.1
      dumbwaiter deploy systemd --check

    """
    from dumbwaiter.deploy.systemd import files, systemd_project_of  # noqa: PLC0415 - only where it is asked for

    settings = current_settings()
    measured = measured_of(settings, unmeasured=unmeasured)
    project = systemd_project_of(settings, prefix, measured, os.environ)
    code = put(output, files(project), check=check)
    if not check:
        tell_hidden(project.hidden)
        click.echo(f"next: read {output / 'README.md'}")
    return code
