"""What runs on the one machine, and what must be known before it is rendered. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import msgspec

from dumbwaiter.brokers.products import product_of
from dumbwaiter.config import Settings
from dumbwaiter.deploy.hiding import Hidden
from dumbwaiter.deploy.image.project import IMAGE, check_image
from dumbwaiter.deploy.models import Measured, Model, deployed, object_name
from dumbwaiter.deploy.moving import Place, local_weights, models_of, opened, wants_gpu
from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

BROKERS = ("redis", "rabbitmq")
"""The servers that can be run, the one that needs least first: who has named none gets that."""


class ComposeProject(msgspec.Struct, frozen=True, kw_only=True):
    """*broker* is one of BROKERS. Without *gpu* no container gets one. What is *hidden* is in none
    of the files.
    """

    settings: Settings
    image: str
    broker: str
    models: Sequence[Model]
    gpu: bool = True
    hidden: Sequence[Hidden] = ()

    @property
    def name(self) -> str:
        """What its containers and volumes begin with: the name of the project's folder."""
        return object_name(PurePosixPath(self.settings.home).name)

    @property
    def place(self) -> Place:
        """Where things lie in its containers."""
        return IMAGE if self.gpu else msgspec.structs.replace(IMAGE, gpus="none")

    def gets_gpu(self, model: Model) -> bool:
        """Whether the workers of *model* see the machine's GPUs."""
        return self.gpu and wants_gpu(model.settings)


def compose_project_of(
    settings: Settings,
    image: str,
    broker: str | None = None,
    measured: Mapping[str, Measured] | None = None,
    *,
    gpu: bool = True,
    environ: Mapping[str, str] | None = None,
) -> ComposeProject:
    """The project of *settings*, with what was *measured* of each model. *broker*: see BROKERS; None: that of the
    settings. *environ*: the variables that the settings were read from, too.

    Raises ConfigError for what cannot be run so.
    """
    local_weights(settings)
    check_image("--image", image)
    product = product_of(settings.broker)
    chosen = broker or (BROKERS[0] if product.on_one_machine else product.name)
    if chosen not in BROKERS:
        raise ConfigError(
            f"the compose file has Redis or RabbitMQ in it, and the broker is {shown(settings.broker)}; say"
            " --broker redis or --broker rabbitmq"
        )
    models_of(settings)
    settings, hidden = opened(settings, environ or {})
    models = deployed(settings, measured)
    return ComposeProject(settings=settings, image=image, broker=chosen, models=models, gpu=gpu, hidden=hidden)
