"""What workers have measured, for whoever renders how they are run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.profiles import load_profile
from dumbwaiter.errors import BlobError

if TYPE_CHECKING:
    from dumbwaiter.config import Settings
    from dumbwaiter.deploy.kubernetes.project import Measured

unmeasured_option = click.option(
    "--unmeasured", is_flag=True, help="Do not look into the blob store for what workers have measured."
)


def measured_of(settings: Settings, *, unmeasured: bool) -> dict[str, Measured]:
    """By model, as far as the blob store knows. Raises click.ClickException where it cannot tell."""
    return {} if unmeasured else asyncio.run(_measured(settings))


async def _measured(settings: Settings) -> dict[str, Measured]:
    from dumbwaiter.deploy.kubernetes.project import Measured  # noqa: PLC0415 - only where something is rendered

    try:
        store = open_store(settings.blobs)
        profiles = [await load_profile(store, name) for name in settings.models]
    except BlobError as error:
        raise click.ClickException(
            f"what workers have measured cannot be read: {error}; say --unmeasured to render without it"
        ) from error
    return {profile.model: Measured.of(profile) for profile in profiles if profile is not None}
