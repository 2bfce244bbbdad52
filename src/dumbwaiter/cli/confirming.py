"""Asking before something is deleted for good."""

from __future__ import annotations

import sys

import click


def confirmed(question: str) -> bool:
    """Whether the person at the terminal says yes. Raises click.UsageError where nobody is there to be asked."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)
        raise click.UsageError("nobody is there to be asked; say --yes", click.get_current_context()) from None


def nothing_deleted() -> int:
    """Say so, to whoever answered no; the exit code."""
    click.echo("nothing was deleted", err=True)
    return 1
