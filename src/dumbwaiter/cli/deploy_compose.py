"""``dumbwaiter deploy compose``: this project for one machine with containers, broker included."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dumbwaiter.cli.deploy_image import put, tell_hidden
from dumbwaiter.cli.deploy_measured import measured_of, unmeasured_option
from dumbwaiter.cli.options import Command, config_option, current_settings
from dumbwaiter.deploy.folders import COMPOSE


@click.command(cls=Command)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    show_default=True,
    default=COMPOSE,
    help="Where the files are written.",
)
@click.option("--image", default="dumbwaiter:latest", show_default=True, metavar="IMAGE", help="Image of this project.")
@click.option(
    "--broker",
    type=click.Choice(["redis", "rabbitmq"]),
    help="The server to run (default: as the broker's URL says, or else redis).",
)
@click.option("--no-gpu", is_flag=True, help="Give no container a GPU, whatever the models' devices say.")
@unmeasured_option
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if the folder is not up to date.")
@config_option
def compose(output: Path, image: str, broker: str | None, no_gpu: bool, unmeasured: bool, check: bool) -> int:
    """Render a compose file for one machine: broker, gateway, courier, and the workers of each model.

    Models that use a GPU share it, as they do without containers. The password of the broker is made by a script
    beside the compose file, and is in no variable. Nothing listens but the gateway, and it on this machine alone.

    Examples:
      dumbwaiter deploy compose
      dumbwaiter deploy compose --broker rabbitmq --image kitchen:1
      dumbwaiter deploy compose --check

    """
    from dumbwaiter.deploy.compose import compose_project_of, files  # noqa: PLC0415 - PyYAML is an extra

    settings = current_settings()
    measured = measured_of(settings, unmeasured=unmeasured)
    project = compose_project_of(settings, image, broker, measured, gpu=not no_gpu, environ=os.environ)
    code = put(output, files(project), check=check)
    if not check:
        tell_hidden(project.hidden)
        click.echo(f"next: read {output / 'README.md'}, then: sudo sh {output / 'prepare.sh'}")
    return code
