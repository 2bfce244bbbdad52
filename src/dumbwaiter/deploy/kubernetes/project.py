"""What is deployed, and what must be known before anything is rendered. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from dumbwaiter.brokers.products import product_of
from dumbwaiter.config import GatewaySettings, KubernetesSettings, ScalerSettings, Settings
from dumbwaiter.deploy import places
from dumbwaiter.deploy.hiding import Hidden, check_url, check_urls, hidden_environment
from dumbwaiter.deploy.models import Measured, Model, deployed
from dumbwaiter.deploy.moving import Certificates, check_certificate, local_weights, models_of, opened, wants_gpu
from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

_SPLIT_MODES = frozenset({"shared", "time-slicing", "mps"})
CERTIFICATES = Certificates(
    folder=places.CERTIFICATES,
    put="put it into a Secret, write its name as kubernetes.certificates,",
    instead={
        "gateway": "let the Ingress end TLS (kubernetes.tls_secret)",
        "scaler": "leave it out (a NetworkPolicy lets nobody but KEDA in)",
    },
)
"""Where pods have theirs."""


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that rendering needs. *settings* have the cluster's broker and blob store, and paths of this machine.
    What is *hidden* is rendered nowhere.
    """

    settings: Settings
    models: Sequence[Model]
    hidden: Sequence[Hidden] = ()

    @property
    def kubernetes(self) -> KubernetesSettings:
        """The table of that name."""
        return self.settings.kubernetes

    @property
    def namespace(self) -> str:
        """Where all objects are."""
        return self.kubernetes.namespace

    @property
    def scales(self) -> bool:
        """Whether any model's workers follow the work."""
        return any(model.settings.scaling.is_on for model in self.models)

    @property
    def has_scaler(self) -> bool:
        """Whether our scaler tells KEDA how many there should be."""
        return self.scales and self.kubernetes.trigger != "native"

    @property
    def scaler_has_tls(self) -> bool:
        """Whether it shows a certificate."""
        return self.has_scaler and self.settings.scaler.certfile is not None

    def gpu_mode(self, model: Model) -> str:
        """How *model* gets a GPU."""
        return self.kubernetes.gpu if wants_gpu(model.settings) else "none"

    def workers_in_pod(self, model: Model) -> int:
        """Each a container of its own."""
        return self.kubernetes.containers if self.gpu_mode(model) in _SPLIT_MODES else 1

    def pods(self, model: Model, workers: int) -> int:
        """How many pods have so many workers."""
        return math.ceil(workers / self.workers_in_pod(model))

    def bounds(self, model: Model) -> tuple[int, int]:
        """The fewest and the most pods of a *model* that scales: together no more than its most workers, but one pod
        there may be.

        Raises ConfigError where no number of pods has as many workers as it may have.
        """
        scaling = model.settings.scaling
        each = self.workers_in_pod(model)
        least, most = self.pods(model, scaling.min_replicas), max(1, (scaling.max_replicas or 1) // each)
        if least > most:
            raise ConfigError(
                f"models.{model.name}.scaling: no number of pods with {each} workers (kubernetes.containers) has from"
                f" {scaling.min_replicas} to {scaling.max_replicas}; write max_replicas = {least * each}"
            )
        return least, most


def project_of(
    settings: Settings, measured: Mapping[str, Measured] | None = None, environ: Mapping[str, str] | None = None
) -> Project:
    """What *settings* deploy, with what was *measured* of each model. *environ*: the variables that they were read
    from, too.

    Raises ConfigError for what cannot run in a cluster, naming the setting and what to write.
    """
    table = settings.kubernetes
    broker, blobs = table.broker or settings.broker, table.blobs or settings.blobs
    if table.image is None:
        raise ConfigError("kubernetes.image is not set; write the image that has the project, or say --image")
    _check_broker(broker)
    _check_blobs(blobs, table)
    _check_gpu(table)
    _check_gateways(table, settings.gateway)
    _check_certificates(settings)
    models_of(settings)
    local_weights(settings)
    settings, env, hidden = _open(msgspec.structs.replace(settings, blobs=blobs), environ or {})
    models = deployed(settings, measured)
    _check_names(models)
    settings = msgspec.structs.replace(settings, broker=broker, kubernetes=msgspec.structs.replace(table, env=env))
    return Project(settings=settings, models=models, hidden=hidden)


def _open(settings: Settings, environ: Mapping[str, str]) -> tuple[Settings, list[str], list[Hidden]]:
    """What everybody may read of *settings* and of their environment, and what is hidden. Raises ConfigError."""
    check_urls(settings)
    check_url("kubernetes.monitor", settings.kubernetes.monitor, "for KEDA logs in with what the Secret has")
    env, first = hidden_environment(settings.kubernetes.env, environ)
    settings, second = opened(settings, environ)
    return settings, env, [*first, *second]


def _check_broker(url: str) -> None:
    product = product_of(url)
    if product.on_one_machine:
        raise ConfigError(
            f"{shown(url)} is {product.on_one_machine}, which the pods of a cluster cannot share; write"
            " kubernetes.broker = the URL of a server or cloud service (docs/brokers.md)"
        )


def _check_blobs(url: str, table: KubernetesSettings) -> None:
    scheme = url.partition(":")[0]
    if scheme == "memory" or (scheme == "file" and table.storage is None):
        raise ConfigError(
            f"the pods of a cluster cannot share the blob store {shown(url)}; write kubernetes.blobs = an s3://,"
            " gs:// or az:// URL, or kubernetes.storage = the name of a PersistentVolumeClaim that many nodes can write"
            " (RWX)"
        )


def _check_gpu(table: KubernetesSettings) -> None:
    if table.gpu == "shared" and table.containers < 2:
        raise ConfigError(
            'kubernetes.gpu = "shared" is for several containers of a pod; write kubernetes.containers = 2 or more, or'
            ' kubernetes.gpu = "exclusive"'
        )
    if table.gpu not in _SPLIT_MODES and table.containers > 1:
        raise ConfigError(
            f"kubernetes.containers = {table.containers} needs a GPU that they share, and kubernetes.gpu is"
            f' "{table.gpu}"; write kubernetes.gpu = "shared", "time-slicing" or "mps"'
        )
    if (table.gpu == "mig") != (table.mig_profile is not None):
        raise ConfigError('kubernetes.gpu = "mig" and kubernetes.mig_profile = "1g.10gb" (say) go together')
    if table.gpus > 1 and table.gpu in _SPLIT_MODES:
        raise ConfigError(
            f'kubernetes.gpus = {table.gpus}: with kubernetes.gpu = "{table.gpu}" a worker has a part of one'
        )
    if table.node_ledgers is not None and table.gpu not in {"time-slicing", "mps"}:
        raise ConfigError(
            f'kubernetes.node_ledgers is for pods that share a GPU, and kubernetes.gpu is "{table.gpu}"; leave it'
            ' out, or write kubernetes.gpu = "time-slicing"'
        )


def _check_gateways(table: KubernetesSettings, gateway: GatewaySettings) -> None:
    if table.gateway_memory <= gateway.memory_limit:
        raise ConfigError(
            f"kubernetes.gateway_memory = {table.gateway_memory} bytes, and the requests of a gateway may take"
            f" gateway.memory_limit = {gateway.memory_limit} of them; write a larger gateway_memory, or a smaller"
            " gateway.memory_limit"
        )
    most = table.gateway_max_replicas
    if most is not None and most < table.gateway_replicas:
        raise ConfigError(
            f"kubernetes.gateway_max_replicas = {most}, and there are never fewer than kubernetes.gateway_replicas ="
            f" {table.gateway_replicas}; write gateway_replicas = {most} too, or a larger gateway_max_replicas"
        )


def _check_certificates(settings: Settings) -> None:
    table, scaler = settings.kubernetes, settings.scaler
    _check_server("gateway", settings.gateway, table)
    if table.trigger == "native":
        return  # no scaler of ours runs
    _check_server("scaler", scaler, table)
    if scaler.certfile is not None and table.trigger == "metrics-api":
        raise ConfigError(
            'scaler.certfile with kubernetes.trigger = "metrics-api": KEDA trusts an authority of your own there'
            ' only where it shows a certificate itself; write kubernetes.trigger = "external-push", or leave'
            " scaler.certfile out"
        )


def _check_server(what: str, server: GatewaySettings | ScalerSettings, table: KubernetesSettings) -> None:
    check_certificate(what, server, CERTIFICATES)
    if server.certfile is not None and table.certificates is None:
        raise ConfigError(
            f"{what}.certfile lies in a Secret whose name is not told; write kubernetes.certificates = its name"
        )


def _check_names(models: Sequence[Model]) -> None:
    seen: dict[str, str] = {}
    for model in models:
        if model.object_name in seen:
            raise ConfigError(f"models {seen[model.object_name]!r} and {model.name!r} would have one name; rename one")
        seen[model.object_name] = model.name
