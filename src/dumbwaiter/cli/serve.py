"""``dumbwaiter serve``: the whole system on one machine."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.cli.beating import beating
from dumbwaiter.cli.event_loop import run_for_long
from dumbwaiter.cli.fleet import scaling
from dumbwaiter.cli.one_process import OneProcess
from dumbwaiter.cli.options import Command, given_config, given_flags, json_option, settings_options
from dumbwaiter.cli.ports import usable_port
from dumbwaiter.cli.runtimes import (
    device_option,
    grace_option,
    hide_load_failures,
    host_option,
    port_option,
    weights_option,
)
from dumbwaiter.cli.serve_view import ServeView
from dumbwaiter.cli.stopping import deaf_afterwards
from dumbwaiter.cli.supervisor import Plan, Supervisor, gateway_grace
from dumbwaiter.cli.targets import Chosen, settings_and_models, spec_of
from dumbwaiter.config import Settings, place_in_file
from dumbwaiter.devices.opening import open_device
from dumbwaiter.errors import ConfigError, DumbwaiterError
from dumbwaiter.observe import configure_logging

if TYPE_CHECKING:
    from dumbwaiter.blobs import BlobStore
    from dumbwaiter.brokers.contract import Broker


@click.command(cls=Command)
@click.argument("models", metavar="[[NAME=]MODULE:CLASS]...", nargs=-1)
@weights_option
@device_option
@host_option
@port_option
@grace_option
@json_option
@settings_options
def serve(models: tuple[str, ...], weights: tuple[str, ...], devices: tuple[str, ...], as_json: bool) -> int:
    """Serve models on this machine: a gateway, a courier, and for each model a worker, kept alive until Ctrl-C.

    A model is a class: MODULE:CLASS is imported from the current folder, FILE.py:CLASS from where the file lies. Its
    NAME is by default the class's in lower case. Without arguments the models of dumbwaiter.toml are served.

    Examples:
      dumbwaiter serve network:Infer --weights weights.safetensors
      dumbwaiter serve cats=examples/classifier/network.py:Infer text=embed:Embedder --port 9000
      dumbwaiter serve --broker memory: network:Infer     # all in one process, nothing on disk

    When it is ready it prints the addresses (--json: each event as a line of JSON). Ctrl-C lets requests under way
    finish; a second Ctrl-C hurries. What still waits in the queue is there at the next start. Two `serve` may share
    one project: their workers compete for the same queues, and each needs a port of its own.

    A model with max_replicas (docs/autoscaling.md) gets as many workers as its work asks for, and none while it is
    idle.

    """
    settings, chosen = settings_and_models(models, weights, devices)
    if not chosen:
        raise click.UsageError("no model to serve; name one, such as: dumbwaiter serve network:Infer")
    _refuse_scaling(settings, chosen)
    specs = [spec_of(model.name, settings) for model in chosen]
    broker, store = open_broker(settings.broker), open_store(settings.blobs)  # neither connects yet
    port = usable_port(settings.gateway.host, settings.gateway.port, share=settings.gateway.share_port)
    _try_devices(settings, chosen)
    asyncio.run(_try(settings, broker, store))
    view = ServeView(settings, specs, as_json=as_json)
    with view:
        # Only now, for the progress line has to share stderr with the log.
        configure_logging(level=settings.log_level, log_format=settings.log_format)
        if settings.broker.startswith("memory:"):
            if settings.log_format != "json":
                hide_load_failures()
            one = OneProcess(settings, specs, view, port=port)
            view.children = one.children
            return run_for_long(until_signalled(one, view, settings.heartbeat))
        return asyncio.run(_supervise(settings, chosen, port, view))


def _refuse_scaling(settings: Settings, chosen: Sequence[Chosen]) -> None:
    scaled = next((model.name for model in chosen if settings.models[model.name].scaling.is_on), None)
    if scaled is not None and settings.broker.startswith("memory:"):
        raise ConfigError(
            f"models.{scaled}.scaling.max_replicas: with the broker memory: all runs in one process, where a model has"
            " one worker; take another broker, such as the default, or leave max_replicas out"
        )


def _try_devices(settings: Settings, chosen: Sequence[Chosen]) -> None:
    """As _try(). Raises ConfigError, also where two models say that one device has different sizes."""
    first: dict[str, tuple[str, str, int]] = {}
    for model in chosen:
        address = settings.models[model.name].device
        if address in {"auto", "none"}:
            continue
        try:
            device = open_device(address)
        except DumbwaiterError as error:
            raise ConfigError(f"{_place_of_device(model)}: {error}") from error
        device.close()
        other, written, capacity = first.setdefault(device.name, (model.name, address, device.capacity))
        if capacity != device.capacity:
            raise ConfigError(
                f"{other} has device {written} and {model.name} {address}: that is one device ({device.name}) of two"
                " sizes; write the same for both"
            )


def _place_of_device(model: Chosen) -> str:
    keys = ("models", model.name, "device")
    place = "--device" if model.device is not None else place_in_file(keys, given_config())
    return f"{place}: {'.'.join(keys)}" if place else ".".join(keys)


async def _try(settings: Settings, broker: Broker, store: BlobStore) -> None:
    """What is wrong is told here, once, and not by each process at each of its tries."""
    await store.check()
    options, outbound = settings.gateway, settings.outbound
    might_be_wrong = (options.certfile, options.keyfile, outbound.allowed_hosts, outbound.allowed_networks)
    if any(might_be_wrong) or options.needs_keys:
        from dumbwaiter.gateway.server import check_options  # noqa: PLC0415 - most need not wait for the web stack

        await check_options(store, options, outbound)
    async with broker:
        pass


async def _supervise(settings: Settings, chosen: Sequence[Chosen], port: int, view: ServeView) -> int:
    supervisor = Supervisor(plans_of(settings, chosen, port), view, settings)
    view.children = supervisor.children
    scaled = [model for model in chosen if settings.models[model.name].scaling.is_on]
    if not scaled:
        return await until_signalled(supervisor, view, settings.heartbeat)
    plans = {model.name: worker_plans(settings, model) for model in scaled}
    async with scaling(settings, plans, supervisor, on_scaled=view.scaled):
        return await until_signalled(supervisor, view, settings.heartbeat)


async def until_signalled(system: Supervisor | OneProcess, view: ServeView, heartbeat: str | None) -> int:
    """Run with SIGINT, SIGTERM and SIGHUP stopping it and, the second time, making it hurry; with signs of life in the
    file *heartbeat*, if any.
    """

    def heard() -> None:
        hurry = system.stop.is_set()
        (system.hurry if hurry else system.stop).set()
        view.stopping(hurry=hurry)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    loop = asyncio.get_running_loop()
    with deaf_afterwards(*numbers):
        for number in numbers:
            loop.add_signal_handler(number, heard)
        try:
            async with beating(heartbeat) as note:
                note("ready")
                return await system.run()
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def plans_of(settings: Settings, chosen: Sequence[Chosen], port: int) -> list[Plan]:
    """The processes to run: they read the same file and variables as this one, and are given its flags.

    Of a model that scales at least one worker, so that what is wrong with it is seen now and not by the first caller.
    """
    common = _common_flags()
    listen = ["--host", settings.gateway.host, "--port", str(port), "--grace", str(gateway_grace(settings))]
    plans = [Plan("gateway", None, ["gateway", *listen, *common], role="gateway")]
    for model in chosen:
        rules = settings.models[model.name].scaling
        count = max(rules.min_replicas, 1) if rules.is_on else settings.models[model.name].replicas
        plan_of = worker_plans(settings, model)
        plans += [plan_of(number) for number in range(1, count + 1)]
    plans.append(Plan("courier", None, ["courier", *common], role="courier"))
    return plans


def worker_plans(settings: Settings, model: Chosen) -> Callable[[int], Plan]:
    """What makes the plan of the n-th worker of *model*."""
    arguments = ["worker", model.argument, "--grace", str(settings.worker.grace), *_common_flags()]
    if model.weights is not None:
        arguments += ["--weights", f"{model.name}={model.weights}"]
    if model.device is not None:
        arguments += ["--device", f"{model.name}={model.device}"]
    comes_and_goes = settings.models[model.name].scaling.is_on

    def plan_of(number: int) -> Plan:
        name = model.name if number == 1 else f"{model.name}-{number}"
        return Plan(name, model.name, arguments, comes_and_goes=comes_and_goes)

    return plan_of


def _common_flags() -> list[str]:
    common: list[str] = ["--config", path] if (path := given_config()) else []
    for name, keys, value in given_flags():
        if len(keys) == 1:
            common += [name, value]
    return common
