"""What runs on the machine, and where things lie there. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from dumbwaiter.config import Settings
from dumbwaiter.deploy.hiding import Hidden
from dumbwaiter.deploy.models import Measured, Model, deployed
from dumbwaiter.deploy.moving import Place, models_of, opened, settings_tree
from dumbwaiter.deploy.requirements import Requirements
from dumbwaiter.errors import ConfigError

USER = "dumbwaiter"
STATE, RUNTIME = "/var/lib/dumbwaiter", "/run/dumbwaiter"
SETTINGS = "/etc/dumbwaiter/dumbwaiter.toml"
VARIABLES = "/etc/dumbwaiter/%s.env"
"""What the workers of a model, or moving.SIGNERS, get as variables, for it may be secret."""


class SystemdProject(msgspec.Struct, frozen=True, kw_only=True):
    """*prefix* is the folder of the virtual environment, which has the project in ``app`` and what *requirements* say.
    What is *hidden* is in no file that is rendered.
    """

    settings: Settings
    models: Sequence[Model]
    prefix: str
    requirements: Requirements
    hidden: Sequence[Hidden] = ()

    @property
    def place(self) -> Place:
        """Where things lie."""
        return Place(project=f"{self.prefix}/app", settings=SETTINGS, data=STATE, ledgers=f"{RUNTIME}/ledgers")

    @property
    def program(self) -> str:
        """What runs."""
        return f"{self.prefix}/bin/dumbwaiter"


def systemd_project_of(
    settings: Settings,
    prefix: str,
    requirements: Requirements,
    measured: Mapping[str, Measured] | None = None,
    environ: Mapping[str, str] | None = None,
) -> SystemdProject:
    """The project of *settings* and its *requirements*, with what was *measured* of each model. *environ*: the
    variables that the settings were read from, too. Raises ConfigError for what cannot run so.
    """
    if not prefix.startswith("/") or any(char in prefix for char in " %\"'\\$\n"):
        raise ConfigError(f"--prefix {prefix!r}: write an absolute path without spaces, quotes, % and $")
    models_of(settings)
    settings, hidden = opened(settings, environ or {})
    models = deployed(settings, measured)
    project = SystemdProject(
        settings=settings, models=models, prefix=prefix.rstrip("/"), requirements=requirements, hidden=hidden
    )
    settings_tree(settings, project.place)
    return project
