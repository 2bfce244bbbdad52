"""What an image is made of, and what must be known before it is rendered. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import msgspec

from dumbwaiter.config import Settings
from dumbwaiter.deploy import places
from dumbwaiter.deploy.folders import RENDERED
from dumbwaiter.deploy.hiding import Hidden
from dumbwaiter.deploy.moving import Certificates, Place, inside, local_weights, models_of, opened
from dumbwaiter.deploy.requirements import Requirements
from dumbwaiter.errors import ConfigError

IMAGE = Place(
    project=places.PROJECT,
    settings=f"{places.SETTINGS}/dumbwaiter.toml",
    data=places.BLOBS,
    ledgers=f"{places.LEDGERS}/dumbwaiter",
    heartbeat=places.HEARTBEAT,
    certificates=Certificates(
        folder=places.CERTIFICATES,
        put="mount it there",
        instead={"gateway": "let a proxy end TLS", "scaler": "leave it out"},
    ),
    listens={"gateway": {"host": "0.0.0.0", "port": places.GATEWAY_PORT}},  # noqa: S104 - a container's address
    usual={"log_format": "json"},
)
"""Where an image has things. Others reach its gateway, so callers need keys unless the settings say otherwise."""

_REMOTE = ("s3:", "gs:", "az:")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")
_MEANS_MORE = frozenset("\"'`\\$*?[]{}<>|")
"""What a Dockerfile, or the list of what is left out of it, does not take as it stands."""


class ImageProject(msgspec.Struct, frozen=True, kw_only=True):
    """*folder* is where the files are written, relative to the project, which is what the image is built from.

    *base* is the image to begin with. *left_out* are folders of the project that are no part of it. *weights* are files
    of the project that change seldom and are large. *downloads_into* are folders of models whose weights come from
    elsewhere. What is *hidden* is in no file.
    """

    settings: Settings
    folder: str
    base: str
    requirements: Requirements
    left_out: Sequence[str] = ()
    weights: Sequence[str] = ()
    downloads_into: Sequence[str] = ()
    hidden: Sequence[Hidden] = ()


def image_project_of(
    settings: Settings,
    folder: str,
    base: str,
    requirements: Requirements,
    environ: Mapping[str, str] | None = None,
    *,
    left_out: Sequence[str] = RENDERED,
) -> ImageProject:
    """The project of *settings*, whose files are written into *folder*, an absolute path. *environ*: the variables that
    the settings were read from, too. *left_out*: folders of the project that are no part of the image.

    Raises ConfigError for what cannot be in an image.
    """
    models_of(settings)
    check_image("--base", base)
    settings, hidden = opened(settings, environ or {})
    relative = _below(settings.home, folder)
    weights = local_weights(settings)
    downloads = _downloads_into(settings)
    _check_path("--output", relative)
    for path in (*weights, *downloads):
        _check_path("in dumbwaiter.toml", path)
    return ImageProject(
        settings=settings,
        folder=relative,
        base=base,
        requirements=requirements,
        left_out=left_out,
        weights=weights,
        downloads_into=downloads,
        hidden=hidden,
    )


def _below(home: str, folder: str) -> str:
    """*folder* relative to *home*. Raises ConfigError where it is not within it."""
    try:
        relative = str(PurePosixPath(folder).relative_to(home))
    except ValueError:
        relative = "."
    if relative == ".":
        raise ConfigError(
            f"--output {folder}: an image is built from the project {home}, so write a folder below that, such as"
            f" {home}/image"
        )
    return relative


def check_image(what: str, name: str) -> None:
    """Raises ConfigError where *name*, said by *what*, cannot be that of an image."""
    if not _IMAGE.fullmatch(name):
        raise ConfigError(f"{what} {name!r} names no image; write one such as python:3.11-slim, or HOST/NAME:TAG")


def _check_path(what: str, path: str) -> None:
    if not path.isprintable() or _MEANS_MORE & set(path) or path != path.strip() or path[0] in "#!-":
        raise ConfigError(
            f"{what}: an image is not built with the path {path!r}: in a Dockerfile some of it means something else;"
            " write one without quotes, $, \\, line breaks and * ? [ ] { } < > |, that does not begin with # ! or -"
        )


def _downloads_into(settings: Settings) -> list[str]:
    """The folders of models that fetch their weights."""
    downloads: dict[str, None] = {}
    for name, model in settings.models.items():
        if (model.weights or "").startswith(_REMOTE):
            downloads[inside(f"models.{name}.project", model.project or settings.home, settings.home)] = None
    return list(downloads)
