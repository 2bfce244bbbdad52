"""The README beside the Dockerfile: how to build it, and how to run it. Pure."""

from __future__ import annotations

import shlex

from dumbwaiter.config import Settings
from dumbwaiter.deploy import places, vendors
from dumbwaiter.deploy.hiding import told
from dumbwaiter.deploy.image.project import IMAGE, ImageProject
from dumbwaiter.deploy.requirements import Requirements
from dumbwaiter.urls import shown


def text(project: ImageProject) -> str:
    """The page, as Markdown."""
    return _building(project) + _running(project)


def _building(project: ImageProject) -> str:
    folder, found = project.folder, project.requirements
    dockerfile, ignored = (shlex.quote(f"{folder}/Dockerfile{end}") for end in ("", ".dockerignore"))
    where = build_argument(project.requirements)
    return f"""# An image of this project

Rendered by `dumbwaiter deploy image`. Change `dumbwaiter.toml` and render again: a file that was edited by hand is not
overwritten, and so not renewed either.

Packages: {len(found.pins)}, from {found.source}.

## Build

What no index has goes into `wheels/` before: {_local(project)}. {_vendored(project)}From the project's folder:

```sh
docker build {where}--file {dockerfile} --tag kitchen:1 .
podman build {where}--format docker --file {dockerfile} --ignorefile {ignored} --tag kitchen:1 .
```

`--build-arg BASE=...` names another image to begin with, with the same Python; `BUILDER` one with a compiler;
`PIP_INDEX_URL`, `PIP_EXTRA_INDEX_URL` and `PIP_NO_INDEX=1` where pip looks.

"""


def _running(project: ImageProject) -> str:
    settings = project.settings
    model = next(iter(settings.models))
    return f"""## Run

One image, and its role is the command: `gateway`, `courier`, `worker {model}`. It is user {places.USER}, and writes
into three folders only:

```sh
docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \\
  --stop-timeout {_grace(settings)} --volume kitchen:{IMAGE.data} kitchen:1 worker {model}
```

| folder | what lies there |
|---|---|
| `{IMAGE.data}` | what is kept: measurements, what was held (`slots`){_files(settings)} |
| `{places.STATE}` | its sign of life, for `dumbwaiter probe` and the image's own health check |
| `{places.LEDGERS}` | who holds what of a GPU: a volume that all containers on one GPU share |

{_broker(settings)}{_hidden(project)}Settings are in `{IMAGE.settings}`: mount others over it, or set `DUMBWAITER_*`
variables.
"""


def build_argument(found: Requirements) -> str:
    """What the command that builds needs to find all packages of *found*, with a space behind it; or nothing."""
    places = " ".join(vendors.indexes(found))
    return f"--build-arg {shlex.quote(f'PIP_EXTRA_INDEX_URL={places}')} " if places else ""


def _vendored(project: ImageProject) -> str:
    found = project.requirements
    lines = [*vendors.told(found), *vendors.doubts(found, project.settings)]
    return "\n\n" + "".join(f"- {line}.\n" for line in lines) + "\n" if lines else ""


def _local(project: ImageProject) -> str:
    return ", ".join(f"`{name}`" for name in project.requirements.local) or "nothing here"


def _grace(settings: Settings) -> int:
    return round(settings.worker.grace) + 10


def _files(settings: Settings) -> str:
    kept = {"sqlite": "the queue", "file": "requests, results"}
    found = [words for scheme, words in kept.items() if scheme in {_scheme(settings.broker), _scheme(settings.blobs)}]
    return "".join(f", {words}" for words in found)


def _scheme(url: str) -> str:
    return url.partition(":")[0]


def _hidden(project: ImageProject) -> str:
    return "".join(f"- {line}.\n" for line in told(project.hidden)) + ("\n" if project.hidden else "")


def _broker(settings: Settings) -> str:
    if shown(settings.broker) == settings.broker:
        return ""
    return (
        f"The broker's URL has a password and so is no part of the image: mount a `dumbwaiter.toml` with all of"
        f" `{IMAGE.settings}` and the line `broker = ...` over it, or set `DUMBWAITER_BROKER`.\n\n"
    )
