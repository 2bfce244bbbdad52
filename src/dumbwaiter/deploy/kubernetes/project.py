"""What is deployed, and what must be known before anything is rendered. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import msgspec

from dumbwaiter.blobs.profiles import ServiceProfile
from dumbwaiter.config import GatewaySettings, KubernetesSettings, ModelSettings, ScalerSettings, Settings
from dumbwaiter.deploy.hiding import Hidden, check_url, check_urls, hidden_environment, without_secrets
from dumbwaiter.deploy.kubernetes.naming import object_name
from dumbwaiter.deploy.kubernetes.places import CERTIFICATES, PROJECT
from dumbwaiter.deploy.moving import models_of
from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

_ON_ONE_MACHINE = {"sqlite": "a file", "memory": "one process's memory"}
_SPLIT_MODES = frozenset({"shared", "time-slicing", "mps"})


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What workers measured of a model, in seconds; 0.0 and None for what was never seen."""

    load_seconds: float = 0.0
    start_seconds: float = 0.0
    long_batch: float | None = None

    @property
    def cold_start(self) -> float:
        """From starting a worker until it can serve."""
        return self.start_seconds + self.load_seconds

    @classmethod
    def of(cls, profile: ServiceProfile) -> Measured:
        """What *profile* tells."""
        return cls(
            load_seconds=profile.load_seconds, start_seconds=profile.start_seconds, long_batch=profile.long_batch
        )


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model; its *target*, *weights* and *project* are as the image has them."""

    name: str
    settings: ModelSettings
    measured: Measured = Measured()

    @property
    def object_name(self) -> str:
        """What its objects are called."""
        return f"worker-{object_name(self.name)}"

    @property
    def wants_gpu(self) -> bool:
        """Whether it is to get one at all."""
        return self.settings.device.partition(":")[0] not in {"none", "host", "fake"}


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that rendering needs. *settings* have the cluster's broker and blob store, and paths of the image;
    what is *hidden* is no part of them.
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
        return self.kubernetes.gpu if model.wants_gpu else "none"

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
    _check_certificates(settings)
    models_of(settings)
    settings, env, hidden = _open(msgspec.structs.replace(settings, blobs=blobs), environ or {})
    models = [_model(name, settings, (measured or {}).get(name)) for name in settings.models]
    _check_names(models)
    settings = msgspec.structs.replace(
        settings,
        broker=broker,
        models={model.name: model.settings for model in models},
        kubernetes=msgspec.structs.replace(table, env=env),
    )
    return Project(settings=settings, models=models, hidden=hidden)


def _open(settings: Settings, environ: Mapping[str, str]) -> tuple[Settings, list[str], list[Hidden]]:
    """What everybody may read of *settings* and of their environment, and what is hidden. Raises ConfigError."""
    check_urls(settings)
    check_url("kubernetes.monitor", settings.kubernetes.monitor, "for KEDA logs in with what the Secret has")
    env, first = hidden_environment(settings.kubernetes.env, environ)
    settings, second = without_secrets(settings, environ)
    return settings, env, [*first, *second]


def _check_broker(url: str) -> None:
    scheme = url.partition(":")[0]
    if scheme in _ON_ONE_MACHINE:
        raise ConfigError(
            f"{shown(url)} is {_ON_ONE_MACHINE[scheme]}, which the pods of a cluster cannot share; write"
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


def _check_certificates(settings: Settings) -> None:
    table, scaler = settings.kubernetes, settings.scaler
    _check_certificate("gateway", settings.gateway, table, "let the Ingress end TLS (kubernetes.tls_secret)")
    if table.trigger == "native":
        return  # no scaler of ours runs
    _check_certificate("scaler", scaler, table, "leave it out (a NetworkPolicy lets nobody but KEDA in)")
    if scaler.certfile is not None and table.trigger == "metrics-api":
        raise ConfigError(
            'scaler.certfile with kubernetes.trigger = "metrics-api": KEDA trusts an authority of your own there'
            ' only where it shows a certificate itself; write kubernetes.trigger = "external-push", or leave'
            " scaler.certfile out"
        )


def _check_certificate(
    what: str, server: GatewaySettings | ScalerSettings, table: KubernetesSettings, instead: str
) -> None:
    """That *server* finds its certificate and the key of it in its pod, or else would start again and again."""
    paths = {"certfile": server.certfile, "keyfile": server.keyfile}
    for name, path in paths.items():
        if path is not None and not path.startswith(f"{CERTIFICATES}/"):
            raise ConfigError(
                f"{what}.{name} = {path!r} lies on this machine; {instead}, or"
                f" put it into a Secret, write its name as kubernetes.certificates, and {name} = {CERTIFICATES}/FILE"
            )
    missing = [name for name, path in paths.items() if path is None]
    if len(missing) == 1:
        raise ConfigError(f"TLS takes a certificate and its private key: {what}.{missing[0]} is not set")
    if not missing and table.certificates is None:
        raise ConfigError(
            f"{what}.certfile lies in a Secret whose name is not told; write kubernetes.certificates = its name"
        )


def _model(name: str, settings: Settings, measured: Measured | None) -> Model:
    model = settings.models[name]
    project = _in_image(f"models.{name}.project", model.project or settings.home, settings.home)
    weights = model.weights
    if weights is not None and weights.startswith("/"):
        weights = _in_image(f"models.{name}.weights", weights, settings.home)
    moved = msgspec.structs.replace(model, project=project, weights=weights)
    return Model(name=name, settings=moved, measured=measured or Measured())


def _in_image(what: str, path: str, home: str) -> str:
    """Where the image has what lies at *path*: it is made of the project's folder alone."""
    try:
        inside = PurePosixPath(path).relative_to(home)
    except ValueError:
        raise ConfigError(
            f"{what}: {path} lies outside of the project {home}, so no image of it has that; move it there, or write a"
            " URI"
        ) from None
    return str(PurePosixPath(PROJECT) / inside)


def _check_names(models: Sequence[Model]) -> None:
    seen: dict[str, str] = {}
    for model in models:
        if model.object_name in seen:
            raise ConfigError(f"models {seen[model.object_name]!r} and {model.name!r} would have one name; rename one")
        seen[model.object_name] = model.name
