"""The compose file: gateway, courier, workers and the broker, on one machine. Pure."""

from __future__ import annotations

from typing import Any

from dumbwaiter.deploy import leaving, places
from dumbwaiter.deploy.compose.brokers import server_of
from dumbwaiter.deploy.compose.project import ComposeProject
from dumbwaiter.deploy.hiding import of_model
from dumbwaiter.deploy.image.project import IMAGE
from dumbwaiter.deploy.models import Model, object_name
from dumbwaiter.deploy.moving import SIGNERS, of_signers
from dumbwaiter.deploy.yaml import Path

Object = dict[str, Any]
_LEDGER_SIZE = "16m"
_OWN = f"uid={places.USER},gid={places.USER},mode=0700"
_BROKER_ENDS = "60s"


def compose_file(project: ComposeProject) -> Object:
    """All of it."""
    services = {project.broker: _broker(project), "gateway": _gateway(project), "courier": _courier(project)}
    services |= {model.object_name: _worker(project, model) for model in project.models}
    return {
        "name": project.name,
        "services": services,
        "networks": {"broker": {"internal": True}, "outside": {}},
        "volumes": {"broker": {}, "data": {}, **({"ledgers": _ledgers()} if _shares(project) else {})},
        "secrets": {
            "settings": {"file": "./secrets/dumbwaiter.toml"},
            "broker": {"file": "./secrets/broker.conf"},
        },
    }


def notes(project: ComposeProject) -> dict[Path, str]:
    """What a reader of it should know."""
    found: dict[Path, str] = {
        ("networks", "broker"): "Nobody but these containers reaches the broker, and it reaches nobody.",
        ("secrets",): "prepare.sh makes these files.",
        ("services", "gateway", "ports"): "Only this machine reaches it. To let others in, set PUBLISH=0.0.0.0:8080 in"
        " .env; put what ends TLS before it.",
    }
    if _shares(project):
        found["volumes", "ledgers"] = "In memory: who holds what of a GPU, for all workers of this machine."
    for model in project.models:
        place = ("services", model.object_name)
        if model.settings.scaling.is_on:
            found[place] = "As many workers as the work asks for, down to none: processes of this one container."
        if project.gets_gpu(model):
            found[*place, "deploy", "resources"] = "All GPUs are seen; the setting `device` says which one is used."
    return found


def variables_file(name: str) -> str:
    """What the containers of the model *name*, or SIGNERS, get as variables, for it may be secret."""
    return f"secrets/{name if name == SIGNERS else object_name(name)}.env"


def _shares(project: ComposeProject) -> bool:
    return any(project.gets_gpu(model) for model in project.models)


def _ledgers() -> Object:
    return {"driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": f"size={_LEDGER_SIZE},{_OWN}"}}


def _broker(project: ComposeProject) -> Object:
    server = server_of(project)
    return {
        **server.service,
        "user": str(server.user),
        "restart": "unless-stopped",
        "stop_grace_period": _BROKER_ENDS,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "networks": ["broker"],
        "volumes": [f"broker:{server.keeps}"],
        "logging": _logging(),
    }


def _gateway(project: ComposeProject) -> Object:
    options = project.settings.gateway
    return _ours(
        project,
        ["gateway"],
        grace=options.grace,
        health=["CMD", "python", "-c", _asks(tls=options.certfile is not None)],
        ports=[f"${{PUBLISH:-127.0.0.1:{options.port}}}:{places.GATEWAY_PORT}"],
        **_signing(project),
    )


def _asks(*, tls: bool) -> str:
    """Python that asks whether it is ready, the broker included."""
    if not tls:
        url = f"http://127.0.0.1:{places.GATEWAY_PORT}/v2/health/ready"
        return f"import urllib.request as r; r.urlopen('{url}', timeout=5)"
    url = f"https://127.0.0.1:{places.GATEWAY_PORT}/v2/health/ready"
    # The certificate is for another name.
    return f"import ssl, urllib.request as r; r.urlopen('{url}', timeout=5, context=ssl._create_unverified_context())"


def _courier(project: ComposeProject) -> Object:
    return _ours(project, ["courier"], grace=project.settings.courier.grace, health=_probe(), **_signing(project))


def _signing(project: ComposeProject) -> Object:
    """What whoever signs is given."""
    return {"env_file": [f"./{variables_file(SIGNERS)}"]} if of_signers(project.hidden) else {}


def _probe() -> list[str]:
    return ["CMD", "dumbwaiter", "probe", "live"]


def _worker(project: ComposeProject, model: Model) -> Object:
    grace = leaving.grace(model, project.settings.worker.grace)
    scales = model.settings.scaling.is_on
    more: Object = {"environment": {"DUMBWAITER_WORKER__GRACE": str(grace)}}
    if of_model(project.hidden, model.name):
        more["env_file"] = [f"./{variables_file(model.name)}"]
    deploy: Object = {} if scales or model.settings.replicas == 1 else {"replicas": model.settings.replicas}
    mounts = []
    if project.gets_gpu(model):
        devices = [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
        deploy["resources"] = {"reservations": {"devices": devices}}
        mounts = [f"ledgers:{places.LEDGERS}"]
    if deploy:
        more["deploy"] = deploy
    return _ours(
        project,
        ["autoscale" if scales else "worker", model.name],
        grace=grace,
        health=_probe(),
        mounts=mounts,
        # What data loaders and the like pass to each other.
        shm_size="1gb",
        **more,
    )


def _ours(
    project: ComposeProject,
    command: list[str],
    *,
    grace: float,
    health: list[str],
    mounts: list[str] | None = None,
    **more: Any,
) -> Object:
    """A service of the project's image."""
    check = {"test": health, "interval": "30s", "timeout": "15s", "start_period": "60s", "retries": 3}
    return {
        "image": project.image,
        "command": command,
        **more,
        "depends_on": {project.broker: {"condition": "service_healthy"}},
        "healthcheck": check,
        "restart": "unless-stopped",
        "stop_grace_period": f"{leaving.termination(grace)}s",
        "user": f"{places.USER}:{places.USER}",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": ["/tmp", f"{places.STATE}:{_OWN}"],  # noqa: S108 - the container's own
        "networks": ["broker", "outside"],
        "secrets": [{"source": "settings", "target": IMAGE.settings}],
        "volumes": [f"data:{IMAGE.data}", *(mounts or [])],
        "logging": _logging(),
    }


def _logging() -> Object:
    return {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}
