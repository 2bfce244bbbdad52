"""What an image is made of, and what must be known before it is rendered. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import msgspec

from dumbwaiter.config import Settings
from dumbwaiter.deploy.image.requirements import Requirements
from dumbwaiter.deploy.kubernetes import places
from dumbwaiter.deploy.moving import Place, inside, local_weights, models_of
from dumbwaiter.errors import ConfigError

IMAGE = Place(
    project=places.PROJECT,
    settings=f"{places.SETTINGS}/dumbwaiter.toml",
    data=places.BLOBS,
    ledgers=f"{places.LEDGERS}/dumbwaiter",
    heartbeat=places.HEARTBEAT,
    certificates=places.CERTIFICATES,
    listens={"host": "0.0.0.0", "port": places.GATEWAY_PORT},  # noqa: S104 - a container's address
    usual={"log_format": "json"},
)
"""Where an image has things. Others reach its gateway, so callers need keys unless the settings say otherwise."""

_REMOTE = ("s3:", "gs:", "az:")


class ImageProject(msgspec.Struct, frozen=True, kw_only=True):
    """*folder* is where the files are written, relative to the project, which is what the image is built from.

    *base* is the image to begin with. *weights* are files of the project that change seldom and are large.
    *downloads_into* are folders of models whose weights come from elsewhere.
    """

    settings: Settings
    folder: str
    base: str
    requirements: Requirements
    weights: Sequence[str] = ()
    downloads_into: Sequence[str] = ()


def image_project_of(settings: Settings, folder: str, base: str, requirements: Requirements) -> ImageProject:
    """The project of *settings*, whose files are written into *folder*, an absolute path.

    Raises ConfigError for what cannot be in an image.
    """
    models_of(settings)
    try:
        relative = str(PurePosixPath(folder).relative_to(settings.home))
    except ValueError:
        relative = "."
    if relative == ".":
        raise ConfigError(
            f"--output {folder}: an image is built from the project {settings.home}, so write a folder below that,"
            f" such as {settings.home}/image"
        )
    downloads: dict[str, None] = {}
    for name, model in settings.models.items():
        if (model.weights or "").startswith(_REMOTE):
            downloads[inside(f"models.{name}.project", model.project or settings.home, settings.home)] = None
    return ImageProject(
        settings=settings,
        folder=relative,
        base=base,
        requirements=requirements,
        weights=local_weights(settings),
        downloads_into=list(downloads),
    )
