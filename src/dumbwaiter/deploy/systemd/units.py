"""The units, by name: a target, gateway, courier, and those of each model's workers. Pure.

A model that does not scale has a unit of which any number can run: ``dumbwaiter-worker-NAME@1``, ``@2`` ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dumbwaiter.brokers.products import product_of
from dumbwaiter.deploy import leaving
from dumbwaiter.deploy.hiding import of_model
from dumbwaiter.deploy.models import Model
from dumbwaiter.deploy.moving import SIGNERS, of_signers, wants_gpu
from dumbwaiter.deploy.systemd.project import RUNTIME, SETTINGS, STATE, USER, VARIABLES, SystemdProject

Lines = Sequence[tuple[str, str]]
Unit = Mapping[str, Lines]
TARGET = "dumbwaiter.target"
GPU = "dumbwaiter-gpu.service"
_USAGE = 2
"""The exit code of what no restart mends: wrong settings."""
_PRIVILEGED = 1024
SERVERS = {
    "redis": "redis-server.service redis.service valkey.service",
    "rabbitmq": "rabbitmq-server.service",
    "nats": "nats-server.service",
    "kafka": "kafka.service confluent-server.service confluent-kafka.service",
    "pulsar": "pulsar.service",
}
"""Where the broker runs on the same machine, it comes first; a name that is not there does not matter."""


def units(project: SystemdProject) -> dict[str, str]:
    """Name and text of each."""
    found: dict[str, Unit] = {
        TARGET: _target(project),
        "dumbwaiter-gateway.service": _gateway(project),
        "dumbwaiter-courier.service": _service(
            project,
            "courier",
            ["courier"],
            project.settings.courier.grace,
            own=[*_signing(project), *_NO_DEVICES],
        ),
    }
    if any(wants_gpu(model.settings) for model in project.models):
        found[GPU] = _gpu()
    found |= {unit_of(model): _worker(project, model) for model in project.models}
    return {name: written(unit) for name, unit in found.items()}


def unit_of(model: Model) -> str:
    """The name of its unit."""
    return f"dumbwaiter-worker-{model.name}{'' if model.settings.scaling.is_on else '@'}.service"


def started(project: SystemdProject) -> list[str]:
    """What the target starts."""
    found = ["dumbwaiter-gateway.service", "dumbwaiter-courier.service"]
    for model in project.models:
        if model.settings.scaling.is_on:
            found.append(unit_of(model))
        else:
            found += [unit_of(model).replace("@", f"@{number}") for number in range(1, model.settings.replicas + 1)]
    return found


def written(unit: Unit) -> str:
    """A unit's file."""
    sections = ["\n".join([f"[{name}]", *(f"{key}={value}" for key, value in lines)]) for name, lines in unit.items()]
    return "\n\n".join(sections) + "\n"


def _target(project: SystemdProject) -> Unit:
    return {
        "Unit": [
            ("Description", "dumbwaiter: gateway, courier and workers"),
            *(("Wants", name) for name in started(project)),
        ],
        "Install": [("WantedBy", "multi-user.target")],
    }


def _gateway(project: SystemdProject) -> Unit:
    options = project.settings.gateway
    own: Lines = _NO_DEVICES
    if options.port and options.port < _PRIVILEGED:
        bind = "CAP_NET_BIND_SERVICE"
        own = [("PrivateDevices", "yes"), ("CapabilityBoundingSet", bind), ("AmbientCapabilities", bind)]
    return _service(project, "gateway", ["gateway"], options.grace, own=[*_signing(project), *own])


def _signing(project: SystemdProject) -> Lines:
    """What whoever signs is given."""
    return [("EnvironmentFile", VARIABLES % SIGNERS)] if of_signers(project.hidden) else []


def _worker(project: SystemdProject, model: Model) -> Unit:
    grace = leaving.grace(model, project.settings.worker.grace)
    command = ["autoscale" if model.settings.scaling.is_on else "worker", model.name]
    gpu = wants_gpu(model.settings)
    own = list(_GPU_DEVICES if gpu else _NO_DEVICES)
    if of_model(project.hidden, model.name):
        own.insert(0, ("EnvironmentFile", VARIABLES % model.name))
    return _service(
        project,
        f"worker of {model.name}",
        command,
        grace,
        environment=[("DUMBWAITER_WORKER__GRACE", str(grace))],
        after=[GPU] if gpu else [],
        own=own,
    )


_NO_DEVICES: Lines = [("PrivateDevices", "yes"), ("CapabilityBoundingSet", ""), ("PrivateUsers", "yes")]
_GPU_DEVICES: Lines = [
    ("DevicePolicy", "closed"),
    ("DeviceAllow", "char-nvidia* rw"),
    ("DeviceAllow", "char-nvidia-caps rw"),
    ("DeviceAllow", "char-nvidia-uvm rw"),
    ("CapabilityBoundingSet", ""),
    # Libraries that join GPUs ask the kernel for the network's interfaces.
    ("RestrictAddressFamilies", "AF_NETLINK"),
]


def _gpu() -> Unit:
    """Loads the driver and makes its devices: no worker may do either, and they must be there when it starts."""
    return {
        "Unit": [("Description", "dumbwaiter: the driver of the GPUs"), ("After", "nvidia-persistenced.service")],
        "Service": [
            ("Type", "oneshot"),
            ("RemainAfterExit", "yes"),
            ("ExecStart", "-/usr/bin/nvidia-modprobe -c 0 -u"),
            ("ProtectHome", "yes"),
            ("PrivateNetwork", "yes"),
            ("PrivateTmp", "yes"),
        ],
    }


def _service(
    project: SystemdProject,
    what: str,
    command: Sequence[str],
    grace: float,
    *,
    own: Lines,
    environment: Lines = (),
    after: Sequence[str] = (),
) -> Unit:
    before = ["network-online.target", *SERVERS.get(product_of(project.settings.broker).name, "").split(), *after]
    variables = [("DUMBWAITER_CONFIG", SETTINGS), ("DUMBWAITER_HEARTBEAT", f"{RUNTIME}/%N.heartbeat"), ("HOME", STATE)]
    return {
        "Unit": [
            ("Description", f"dumbwaiter: {what}"),
            ("After", " ".join(before)),
            ("Wants", " ".join(["network-online.target", *after])),
            ("PartOf", TARGET),
            # A broker that is away for an hour is no reason to give up.
            ("StartLimitIntervalSec", "0"),
        ],
        "Service": [
            ("Type", "exec"),
            ("User", USER),
            ("Group", USER),
            ("WorkingDirectory", project.place.project),
            *(("Environment", f"{name}={value}") for name, value in [*variables, *environment]),
            ("ExecStart", " ".join([project.program, *command])),
            ("Restart", "on-failure"),
            ("RestartSec", "2"),
            ("RestartPreventExitStatus", str(_USAGE)),
            *_stopping(grace),
            *_folders(),
            *_hardening(),
            *own,
        ],
        "Install": [("WantedBy", TARGET)],
    }


def _stopping(grace: float) -> Iterator[tuple[str, str]]:
    # To the process alone: it tells its runner itself. What is left after the time is killed.
    yield "KillMode", "mixed"
    yield "KillSignal", "SIGTERM"
    yield "TimeoutStopSec", str(leaving.termination(grace))
    # A runner that took too much memory is started again by its worker, who knows for which message.
    yield "OOMPolicy", "continue"


def _folders() -> Iterator[tuple[str, str]]:
    yield "StateDirectory", USER
    yield "StateDirectoryMode", "0700"
    yield "RuntimeDirectory", USER
    yield "RuntimeDirectoryMode", "0700"
    # Else the first unit that stops takes the folder from the others.
    yield "RuntimeDirectoryPreserve", "yes"
    yield "UMask", "0077"


def _hardening() -> Iterator[tuple[str, str]]:
    # No MemoryDenyWriteExecute: PyTorch makes code as it runs.
    yes = (
        *("NoNewPrivileges", "PrivateTmp", "ProtectHome", "ProtectClock", "ProtectControlGroups", "ProtectHostname"),
        *("ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "RestrictNamespaces"),
        *("RestrictRealtime", "RestrictSUIDSGID", "LockPersonality", "RemoveIPC"),
    )
    yield "ProtectSystem", "strict"
    yield from ((name, "yes") for name in yes)
    yield "ProtectProc", "invisible"
    yield "RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"
    yield "SystemCallArchitectures", "native"
    yield "SystemCallFilter", "@system-service"
    yield "SystemCallErrorNumber", "EPERM"
