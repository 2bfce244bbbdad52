"""``dumbwaiter deploy systemd``: this project for a machine without containers."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dumbwaiter.cli.deploy_image import put, tell_hidden, tell_packages, tell_wheels
from dumbwaiter.cli.deploy_measured import measured_of, unmeasured_option
from dumbwaiter.cli.options import Command, current_settings, settings_options
from dumbwaiter.deploy.folders import SYSTEMD


@click.command(cls=Command)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    show_default=True,
    default=SYSTEMD,
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
    as long to stop as its batches were measured to take. Packages are found as `deploy image` finds them.

    Examples:
      dumbwaiter deploy systemd
      dumbwaiter deploy systemd --prefix /srv/kitchen --broker redis://127.0.0.1
      dumbwaiter deploy systemd --check

    """
    from dumbwaiter.deploy.requirements import (  # noqa: PLC0415 - an extra
        extra_of,
        installed_here,
        requirements_of,
    )
    from dumbwaiter.deploy.systemd import files, systemd_project_of  # noqa: PLC0415 - as above

    settings = current_settings()
    measured = measured_of(settings, unmeasured=unmeasured)
    found = requirements_of(Path(settings.home), extra_of(settings.broker), installed_here())
    project = systemd_project_of(settings, prefix, found, measured, os.environ)
    code = put(output, files(project), check=check)
    if not check:
        tell_hidden(project.hidden)
        tell_packages(found, settings)
        if found.local:
            click.echo("before, for what no index has:")
        tell_wheels(found, output)
        click.echo(f"next: read {output / 'README.md'}")
    return code
