"""``dumbwaiter version``."""

from __future__ import annotations

import platform
from importlib.metadata import version as version_of

import click

from dumbwaiter.cli.options import Command, json_option


@click.command(cls=Command)
@json_option
def version(as_json: bool) -> None:
    """Print the version of dumbwaiter and of Python.

    Example:
      dumbwaiter version --json

    """
    versions = {"dumbwaiter": version_of("dumbwaiter"), "python": platform.python_version()}
    if as_json:
        from dumbwaiter.cli.output import print_json  # noqa: PLC0415 - msgspec only where needed

        print_json(versions)
    else:
        click.echo(f"dumbwaiter {versions['dumbwaiter']} (Python {versions['python']})")
