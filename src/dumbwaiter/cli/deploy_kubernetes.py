"""``dumbwaiter deploy kubernetes`` and ``deploy helm``: settings and what was measured in, a folder of files out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click
import msgspec

from dumbwaiter.cli.deploy_image import put, tell_hidden
from dumbwaiter.cli.deploy_measured import measured_of, unmeasured_option
from dumbwaiter.cli.options import Command, current_settings, given_flags, setting, settings_options
from dumbwaiter.deploy.folders import CHART, KUBERNETES

if TYPE_CHECKING:
    from dumbwaiter.deploy.kubernetes import Project

F = TypeVar("F", bound=Callable[..., object])
_AS_SEEN_THERE = {("broker",), ("blobs",)}
"""Settings whose flags mean, here, what the cluster uses."""


def _options(folder: str) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in (
            settings_options,
            unmeasured_option,
            click.option("--check", is_flag=True, help="Write nothing; exit with 1 if the folder is not up to date."),
            setting("--namespace", "kubernetes", "namespace", text="Namespace of all objects.", metavar="NAME"),
            setting("--image", "kubernetes", "image", text="Image with dumbwaiter and the project.", metavar="IMAGE"),
            click.option(
                "--output",
                type=click.Path(file_okay=False, path_type=Path),
                default=folder,
                show_default=True,
                metavar="FOLDER",
                help="Where the files are written.",
            ),
        ):
            command = option(command)
        return command

    return decorate


@click.command(cls=Command)
@_options(KUBERNETES)
def kubernetes(output: Path, check: bool, unmeasured: bool) -> int:
    """Render this project for Kubernetes: a file for each object, a kustomization, and a README with what to install.

    Gateway, courier and a Deployment of workers for each model in dumbwaiter.toml. A model whose `scaling` has
    max_replicas follows its work by KEDA, down to zero. The table [kubernetes] says the rest: image, broker, GPUs,
    hosts (docs/kubernetes.md). --broker and --blobs are what the pods use.

    Files of an earlier rendering are renewed or removed; anything else in the folder, and what was edited by hand, is
    left alone. What may be secret comes from a Secret that you make.

    Examples:
      dumbwaiter deploy kubernetes --image registry.example.com/kitchen:1.4 --broker amqp://rabbit --blobs s3://kitchen
      dumbwaiter deploy kubernetes --unmeasured --check

    """
    from dumbwaiter.deploy.kubernetes.files import files  # noqa: PLC0415 - PyYAML is an extra

    code = _render(files, output, check=check, unmeasured=unmeasured)
    if not check:
        click.echo(f"next: cd {output}, and do what README.md says (in the end: kubectl apply -k .)")
    return code


@click.command(cls=Command)
@_options(CHART)
def helm(output: Path, check: bool, unmeasured: bool) -> int:
    """Render this project as a Helm chart: the objects of `deploy kubernetes`, with values for what differs by cluster.

    Examples:
      dumbwaiter deploy helm --image registry.example.com/kitchen:1.4 --broker amqp://rabbit --blobs s3://kitchen

    """
    from dumbwaiter.deploy.helm import files  # noqa: PLC0415 - PyYAML is an extra

    code = _render(files, output, check=check, unmeasured=unmeasured)
    if not check:
        click.echo(f"next: cd {output}, and do what README.md says (in the end: helm upgrade --install NAME .)")
    return code


def _render(render: Callable[[Project], Mapping[str, str]], output: Path, *, check: bool, unmeasured: bool) -> int:
    """Write what *render* makes of the project, and tell what has changed; with *check* only tell."""
    from dumbwaiter.deploy.kubernetes import project_of  # noqa: PLC0415 - as above

    flags = [(name, ("kubernetes", *keys), value) for name, keys, value in given_flags() if keys in _AS_SEEN_THERE]
    settings = current_settings(flags)
    stored = msgspec.structs.replace(settings, blobs=settings.kubernetes.blobs or settings.blobs)
    measured = measured_of(stored, unmeasured=unmeasured)
    project = project_of(settings, measured, os.environ)
    code = put(output, render(project), check=check)
    if not check:
        tell_hidden(project.hidden)
    return code
