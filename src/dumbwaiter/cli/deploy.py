"""``dumbwaiter deploy``: a group of commands, each a file of its own that is imported when it is asked for."""

from __future__ import annotations

import click

from dumbwaiter.cli.options import LazyGroup

#: Command -> "module:attribute" and its line in --help, as in dumbwaiter.cli.
DEPLOYMENTS = {
    "kubernetes": ("dumbwaiter.cli.deploy_kubernetes:kubernetes", "Render objects for `kubectl apply -k`, KEDA's too."),
    "helm": ("dumbwaiter.cli.deploy_kubernetes:helm", "Render the same as a Helm chart."),
    "image": ("dumbwaiter.cli.deploy_image:image", "Render a Dockerfile, with what it is built from."),
    "compose": ("dumbwaiter.cli.deploy_compose:compose", "Render a compose file for one machine, broker included."),
    "systemd": ("dumbwaiter.cli.deploy_systemd:systemd", "Render units of systemd for a machine without containers."),
}


@click.group(cls=LazyGroup, lazy=DEPLOYMENTS, synonyms={"k8s": "kubernetes", "keda": "kubernetes", "chart": "helm"})
def deploy() -> None:
    """Render what runs this project elsewhere. Nothing is applied: what is written is yours to read first.

    Examples:
      dumbwaiter deploy kubernetes --output kubernetes --image registry.example.com/kitchen:1.4

    """
