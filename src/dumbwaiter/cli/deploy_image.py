"""``dumbwaiter deploy image``: a Dockerfile of this project, and what it is built with."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dumbwaiter.cli.options import Command, current_settings, settings_options

if TYPE_CHECKING:
    from dumbwaiter.config import Settings
    from dumbwaiter.deploy.hiding import Hidden
    from dumbwaiter.deploy.requirements import Requirements

output_option = click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    show_default=True,
    default="image",
    help="Where the files are written: a folder of the project.",
)


@click.command(cls=Command)
@output_option
@click.option("--base", metavar="IMAGE", help="What the image begins with (default python:X.Y-slim of this Python).")
@click.option("--extra", "extras", multiple=True, metavar="NAME", help="Extra of dumbwaiter to install as well: redis.")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if the folder is not up to date.")
@settings_options
def image(output: Path, base: str | None, extras: tuple[str, ...], check: bool) -> int:
    """Render a Dockerfile for this project: one image, whose command says whether it is gateway, worker or courier.

    Packages are those of the project's requirements.txt or pyproject.toml, or of this environment where there is
    neither, each in the version that is installed here; dumbwaiter comes with the client of the broker. It runs as
    user 10001, with a root that may be read-only. What may be secret in the settings is no part of it; it says what.

    Examples:
      dumbwaiter deploy image
      dumbwaiter deploy image --extra redis --output build/image
      dumbwaiter deploy image --check

    """
    from dumbwaiter.deploy.image import files, image_project_of  # noqa: PLC0415 - an extra
    from dumbwaiter.deploy.image.left_out import rendered_in  # noqa: PLC0415 - as above
    from dumbwaiter.deploy.image.readme import build_argument  # noqa: PLC0415 - as above
    from dumbwaiter.deploy.requirements import installed_here, requirements_of  # noqa: PLC0415 - as above

    settings = current_settings()
    found = requirements_of(Path(settings.home), {*extras, *_extras_of(settings)}, installed_here())
    begin = base or f"python:{'.'.join(platform.python_version_tuple()[:2])}-slim"
    left_out = rendered_in(Path(settings.home))
    project = image_project_of(settings, str(output.absolute()), begin, found, os.environ, left_out=left_out)
    code = put(output, files(project), check=check)
    if check:
        return code
    tell_hidden(project.hidden)
    tell_packages(found, settings)
    click.echo("next:")
    tell_wheels(found, output)
    built = f"--file {shlex.quote(f'{output}/Dockerfile')} --tag NAME {shlex.quote(settings.home)}"
    click.echo(f"  docker build {build_argument(found)}{built}")
    return code


def put(output: Path, files: Mapping[str, str], *, check: bool) -> int:
    """Make the folder *output* hold *files*, tell what has changed, and give the exit code."""
    from dumbwaiter.deploy.writing import write  # noqa: PLC0415 - only where something is rendered

    changes = [each for each in write(output, files, check=check) if each.kind != "same"]
    for change in changes:
        click.echo(f"{change.kind:8}{output / change.file}")
    if not changes:
        click.echo(f"{output} is up to date")
    return 1 if check and changes else 0


def tell_hidden(hidden: Sequence[Hidden]) -> None:
    """Say what is not in the files, and how it is given instead."""
    from dumbwaiter.deploy.hiding import told  # noqa: PLC0415 - only where something is rendered

    for line in told(hidden):
        click.echo(f"note: {line.replace('`', '')}")


def tell_packages(found: Requirements, settings: Settings) -> None:
    """Say how many there are, and what is to be known of some."""
    from dumbwaiter.deploy import vendors  # noqa: PLC0415 - an extra

    click.echo(f"packages: {len(found.pins)}, from {found.source}")
    for line in vendors.told(found):
        click.echo(f"note: {line.replace('`', '')}")
    for line in vendors.doubts(found, settings):
        click.echo(f"warning: {line.replace('`', '')}")


def tell_wheels(found: Requirements, output: Path) -> None:
    """Say how what no index has is put into the folder *output*."""
    for folder in found.local.values():
        click.echo(f"  pip wheel --no-deps --wheel-dir {shlex.quote(f'{output}/wheels')} {shlex.quote(folder)}")


def _extras_of(settings: Settings) -> set[str]:
    """Those with the clients of the brokers that the settings name."""
    from dumbwaiter.deploy.requirements import extra_of  # noqa: PLC0415 - an extra

    scaler = {"scaler"} if any(model.scaling.is_on for model in settings.models.values()) else set()
    return extra_of(settings.broker) | extra_of(settings.kubernetes.broker or "") | scaler
