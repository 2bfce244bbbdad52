"""``dumbwaiter autoscale``: workers that follow the work, without a gateway beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from dumbwaiter.brokers import open_broker
from dumbwaiter.cli.fleet import scaling
from dumbwaiter.cli.options import Command, json_option, settings_options
from dumbwaiter.cli.runtimes import checked_store, device_option, grace_option, weights_option
from dumbwaiter.cli.serve import until_signalled, worker_plans
from dumbwaiter.cli.serve_view import ServeView
from dumbwaiter.cli.supervisor import Supervisor
from dumbwaiter.cli.targets import settings_and_models, spec_of
from dumbwaiter.errors import ConfigError
from dumbwaiter.observe import configure_logging

if TYPE_CHECKING:
    from dumbwaiter.cli.fleet import Plans
    from dumbwaiter.cli.supervisor import Child
    from dumbwaiter.config import Settings


@click.command(cls=Command)
@click.argument("models", metavar="[[NAME=]MODULE:CLASS]...", nargs=-1)
@weights_option
@device_option
@grace_option
@json_option
@settings_options
def autoscale(models: tuple[str, ...], weights: tuple[str, ...], devices: tuple[str, ...], as_json: bool) -> int:
    """Keep as many workers of each model on this machine as its work asks for, and none while there is none.

    It is what `dumbwaiter serve` does for models with max_replicas, without gateway and courier: those may run
    elsewhere. Without arguments the models of dumbwaiter.toml that have max_replicas are meant. A model whose queue
    nobody has made yet gets one worker first, which makes it.

    Examples:
      dumbwaiter autoscale
      DUMBWAITER_SCALING__MAX_REPLICAS=4 dumbwaiter autoscale network:Infer
      dumbwaiter autoscale --json cats dogs

    Each change is told with its reason (--json: each event as a line of JSON). Ctrl-C lets what runs finish; a second
    Ctrl-C hurries.

    """
    settings, chosen = settings_and_models(models, weights, devices)
    scaled = [model for model in chosen if settings.models[model.name].scaling.is_on]
    if models and len(scaled) < len(chosen):
        fixed = next(model.name for model in chosen if model not in scaled)
        raise ConfigError(f"models.{fixed}.scaling has no max_replicas; say how many workers it may get at the most")
    if not scaled:
        raise click.UsageError(
            "no model to scale; set max_replicas in the table scaling, or in one models.NAME.scaling"
        )
    if settings.broker.startswith("memory:"):
        raise ConfigError("broker: memory: cannot be shared with worker processes; take another broker")
    asyncio.run(_try(settings))
    view = ScaleView(settings, [spec_of(model.name, settings) for model in scaled], as_json=as_json)
    plans = {model.name: worker_plans(settings, model) for model in scaled}
    with view:
        configure_logging(level=settings.log_level, log_format=settings.log_format)
        return asyncio.run(_follow(settings, plans, view))


class ScaleView(ServeView):
    """What `autoscale` shows: each change and every death."""

    def _title(self) -> str:
        return f"following the work of {', '.join(spec.name for spec in self._specs)}; Ctrl-C stops it"

    def _announce(self) -> None:
        """There is no moment in which all is ready."""

    def _waiting_for(self) -> str:
        models: dict[str, list[Child]] = {spec.name: [] for spec in self._specs}
        for child in self.children:
            models.setdefault(child.plan.model or "", []).append(child)
        return ", ".join(f"{model}: {_states(children)}" for model, children in models.items())


def _states(children: Sequence[Child]) -> str:
    states = [child.report.state for child in children]
    return " and ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "no worker"


async def _try(settings: Settings) -> None:
    """What is wrong is told here, once, and not by each process at each of its tries."""
    await checked_store(settings)
    async with open_broker(settings.broker):
        pass


async def _follow(settings: Settings, plans: Plans, view: ScaleView) -> int:
    supervisor = Supervisor([], view, settings)
    view.children = supervisor.children
    async with scaling(settings, plans, supervisor, on_scaled=view.scaled):
        return await until_signalled(supervisor, view, settings.heartbeat)
