"""What workers have measured, for whoever renders how they are run."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import click

from dumbwaiter.blobs import open_store
from dumbwaiter.blobs.profiles import load_profile
from dumbwaiter.errors import BlobError, ConfigError
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from dumbwaiter.config import Settings
    from dumbwaiter.deploy.models import Measured

_CREDENTIALS = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    "az": ("AZURE_STORAGE_ACCOUNT_NAME",),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"),
}
"""Scheme of a cloud's store -> variables of which one says who asks; the first is what most have."""

unmeasured_option = click.option(
    "--unmeasured", is_flag=True, help="Do not look into the blob store for what workers have measured."
)


def measured_of(settings: Settings, *, unmeasured: bool) -> dict[str, Measured]:
    """By model, as far as the blob store knows. Raises click.ClickException where it cannot tell, and ConfigError for a
    URL that names no store.
    """
    return {} if unmeasured else asyncio.run(_measured(settings))


async def _measured(settings: Settings) -> dict[str, Measured]:
    from dumbwaiter.deploy.models import Measured  # noqa: PLC0415 - only where something is rendered

    try:
        store = open_store(settings.blobs)
        profiles = [await load_profile(store, name) for name in settings.models]
    except (BlobError, ConfigError) as error:
        if isinstance(error, ConfigError) and _cloud(settings.blobs) is None:
            raise
        raise click.ClickException(_unreadable(settings.blobs, error)) from error
    return {profile.model: Measured.of(profile) for profile in profiles if profile is not None}


def _unreadable(url: str, error: Exception) -> str:
    """What is missing here, if that is known, before what the store's client says."""
    what = f"{shown(url)} cannot be asked what workers have measured"
    do = "say --unmeasured to render without that"
    variables = _cloud(url)
    if variables and not any(map(os.environ.get, variables)):
        what = f"{variables[0]} is not set here, and {what}"
        do = f"set it (docs/stores.md), or {do}"
    return f"{what}; {do}. It says: {error}"


def _cloud(url: str) -> tuple[str, ...] | None:
    return _CREDENTIALS.get(url.partition(":")[0])
