"""The Dockerfile, and what of the project is no part of the image. Pure.

What changes seldom comes first: packages, then weights, then the code, then the settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath

from dumbwaiter.deploy import places
from dumbwaiter.deploy.folders import SECRETS
from dumbwaiter.deploy.image.project import IMAGE, ImageProject

VENV = "/opt/dumbwaiter"
STATE = (places.STATE, places.LEDGERS, places.BLOBS)
"""Folders that may be written."""
REQUIREMENTS, SETTINGS, WHEELS = "requirements.txt", "dumbwaiter.toml", "wheels"


def dockerfile(project: ImageProject) -> str:
    """The text, to be built from the project's folder."""
    return "\n\n".join("\n".join(part) for part in _parts(project)) + "\n"


def ignored(project: ImageProject) -> str:
    """What is left out of what is built from, as ``Dockerfile.dockerignore``."""
    folder = project.folder
    patterns = [
        *(".git", "**/.dumbwaiter", "**/.venv", "**/venv", "**/__pycache__", "**/*.pyc"),
        *("**/.pytest_cache", "**/.mypy_cache", "**/.ruff_cache", "**/.hypothesis", "**/node_modules"),
        "# Settings and whatever may be secret: the image has settings of its own.",
        *("dumbwaiter.toml", "**/.env", "**/.env.*", "**/*.pem", "**/*.key", f"**/{SECRETS}"),
        *_others(project),
        "# Of what was rendered only what is built from.",
        f"{folder}/*",
        *(f"!{folder}/{name}" for name in (REQUIREMENTS, SETTINGS, WHEELS)),
    ]
    return "\n".join(patterns) + "\n"


def _others(project: ImageProject) -> Iterator[str]:
    if project.left_out:
        yield "# Folders that other commands render into. One of these names with nothing rendered in it is taken."
        yield from project.left_out


def _parts(project: ImageProject) -> Iterator[list[str]]:
    yield [
        "# What to begin with: an image with Python and a shell. For packages that are compiled, name one with a",
        "# compiler as BUILDER, of the same Python.",
        f"ARG BASE={project.base}",
        "ARG BUILDER=${BASE}",
    ]
    yield ["FROM ${BUILDER} AS packages", *_packages(project)]
    if project.weights:
        yield _weights(project)
    yield _project(project)
    yield [
        "FROM ${BASE}",
        *_user(),
        f"COPY --from=packages {VENV} {VENV}",
        *([f"COPY --from=weights {places.PROJECT} {places.PROJECT}"] if project.weights else []),
        f"COPY --from=project {places.PROJECT} {places.PROJECT}",
        f"COPY --chmod=644 {_words(_path(project.folder, SETTINGS), IMAGE.settings)}",
    ]
    yield _running()


def _packages(project: ImageProject) -> list[str]:
    as_is = project.requirements.as_is
    install = f"{VENV}/bin/python -m pip install --no-cache-dir --disable-pip-version-check --find-links /build"
    lines = [
        "# Where pip looks, if not at PyPI; no part of the image that is made in the end.",
        "ARG PIP_INDEX_URL",
        "ARG PIP_EXTRA_INDEX_URL",
        "ARG PIP_NO_INDEX",
        f"RUN python3 -m venv {VENV}",
    ]
    if as_is:
        lines += [
            f"# {as_is} says it in pip's own words.",
            f"COPY {_words(as_is, f'{_path(project.folder, WHEELS)}/', '/build/')}",
            *(f"COPY {_words(name, f'/build/{name}')}" for name in project.requirements.beside),
            f"RUN {install} \\",
            f"      --requirement /build/{as_is}",
        ]
    return [
        *lines,
        f"COPY {_words(_path(project.folder, REQUIREMENTS), '/build/pinned.txt')}",
        f"COPY {_words(f'{_path(project.folder, WHEELS)}/', '/build/')}",
        f"RUN {install} \\",
        "      --requirement /build/pinned.txt \\",
        f"    && {VENV}/bin/python -m pip check",
    ]


def _weights(project: ImageProject) -> list[str]:
    return [
        "# Large, and seldom another: a layer of their own.",
        "FROM ${BASE} AS weights",
        *(f"COPY {_words(path, str(PurePosixPath(places.PROJECT) / path))}" for path in project.weights),
        f"RUN chmod -R a+rX {places.PROJECT}",
    ]


def _project(project: ImageProject) -> list[str]:
    gone = [project.folder, *project.weights]
    folders = [str(PurePosixPath(places.PROJECT) / path) for path in project.downloads_into]
    return [
        "FROM ${BASE} AS project",
        f"COPY . {places.PROJECT}",
        f"WORKDIR {places.PROJECT}",
        f"RUN {_words('rm', '-rf', *gone)}",
        "# Weights that are fetched are kept where all that is kept lies.",
        *(f"RUN {_words('ln', '-s', IMAGE.data, f'{folder}/.dumbwaiter')}" for folder in folders or [places.PROJECT]),
        f"RUN chmod -R a+rX {places.PROJECT}",
    ]


def _user() -> list[str]:
    user = places.USER
    return [
        "# Whoever asks who it is gets an answer. Folders that are not mounted belong to it, too.",
        f"RUN echo 'dumbwaiter:x:{user}:{user}::/tmp:/usr/sbin/nologin' >> /etc/passwd \\",
        f"    && echo 'dumbwaiter:x:{user}:' >> /etc/group \\",
        f"    && mkdir -p {' '.join(STATE)} {places.PROJECT} \\",
        f"    && chown {user}:{user} {' '.join(STATE)} \\",
        f"    && chmod 700 {' '.join(STATE)}",
    ]


def _running() -> list[str]:
    user = places.USER
    return [
        f"ENV PATH={VENV}/bin:$PATH \\",
        f"    DUMBWAITER_CONFIG={IMAGE.settings} \\",
        "    HOME=/tmp TMPDIR=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \\",
        "    NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        f"WORKDIR {places.PROJECT}",
        f"USER {user}:{user}",
        "# With these and a tmpfs at /tmp the rest may be read-only.",
        f"VOLUME {json.dumps([places.STATE, places.BLOBS])}",
        f"EXPOSE {places.GATEWAY_PORT}",
        "# Whether its event loop runs: gateway, worker and courier say so in a file. A model may take long to load.",
        'HEALTHCHECK --interval=30s --timeout=15s --start-period=60s --retries=3 CMD ["dumbwaiter", "probe", "live"]',
        "# As process 1 it takes in what others leave behind, and passes signals on.",
        'ENTRYPOINT ["dumbwaiter"]',
        'CMD ["--help"]',
    ]


def _path(*parts: str) -> str:
    return str(PurePosixPath(*parts))


def _words(*words: str) -> str:
    """In JSON, so that a space in one is no space between two."""
    return json.dumps(words, ensure_ascii=False)
