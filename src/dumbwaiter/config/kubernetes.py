"""How a project is deployed on Kubernetes: the table ``kubernetes``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from dumbwaiter.config.quantities import CountInPod, MaybeSpan, NbytesOfPod, Replicas, Seconds, SomeReplicas, Span

GPU_MODES = ("exclusive", "shared", "time-slicing", "mps", "mig", "none")


class KubernetesSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What ``dumbwaiter deploy kubernetes`` and ``deploy helm`` render beyond what the other tables say.

    *image* has dumbwaiter and the project. *broker* and *blobs* are what the cluster uses, where that is something else
    than here. *secret* names the Secret with what is secret in them; with another *identity* the cloud's own identities
    are used where it has them, of which *role* is the name. *certificates* names a Secret that is mounted as a folder,
    *storage* a volume claim for a blob store of files. *env* are further variables, ``NAME=value``.

    *trigger* is who tells KEDA how many workers there should be. *boot* is how long a node and the image on it take to
    be there, before a worker's own start. *monitor* is where a native trigger reads the broker's
    counts, where its URL does not say. *fallback_replicas* is what there is at the least while nobody can tell.

    *gpu* is how workers get GPUs: *gpus* whole ones for each, one shared by *containers* of a pod, slices of one, a
    part by *mig_profile*, or none. *notice* is how long before its end a node that is taken back says so.
    *node_ledgers* is a folder of the node in which pods that share its GPUs say what they hold.
    """

    namespace: str = "dumbwaiter"
    image: str | None = None
    pull_secret: str | None = None
    broker: str | None = None
    blobs: str | None = None
    secret: str = "dumbwaiter"  # noqa: S105 - the name of one
    identity: Literal["secret", "aws", "azure", "gcp"] = "secret"
    role: str | None = None
    certificates: str | None = None
    storage: str | None = None
    env: list[str] = []
    trigger: Literal["external-push", "metrics-api", "native"] = "external-push"
    polling_interval: Span = 15.0
    boot: Seconds = 120.0
    fallback_replicas: Replicas = 1
    monitor: str | None = None
    nats_account: str = "$G"
    keda_namespace: str = "keda"
    gpu: Literal["exclusive", "shared", "time-slicing", "mps", "mig", "none"] = "exclusive"
    gpus: CountInPod = 1
    containers: CountInPod = 1
    gpu_resource: str = "nvidia.com/gpu"
    device_class: str = "gpu.nvidia.com"
    mig_profile: str | None = None
    node_ledgers: str | None = None
    runtime_class: str | None = None
    node_selector: list[str] = []
    tolerations: list[str] = []
    notice: MaybeSpan = None
    worker_cpu: str = "1"
    worker_memory: NbytesOfPod = 4 * 1024**3
    worker_scratch: NbytesOfPod = 8 * 1024**3
    gateway_cpu: str = "500m"
    gateway_memory: NbytesOfPod = 1024**3
    gateway_replicas: SomeReplicas = 2
    gateway_max_replicas: SomeReplicas | None = None
    gateway_from: list[str] = []
    courier_cpu: str = "100m"
    courier_memory: NbytesOfPod = 256 * 1024**2
    courier_replicas: SomeReplicas = 1
    scaler_cpu: str = "100m"
    scaler_memory: NbytesOfPod = 256 * 1024**2
    host: str | None = None
    tls_secret: str | None = None
    ingress_class: str | None = None
    ingress_annotations: list[str] = []


_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_LABELS = rf"(?![a-z0-9.-]{{254}}){_LABEL}(\.{_LABEL})*"
_NAME = re.compile(_LABELS)
_HOST = re.compile(rf"(\*\.)?{_LABELS}")
_CPU = re.compile(r"([1-9][0-9]{0,5}(\.[0-9]+)?|0\.[0-9]*[1-9][0-9]*|[1-9][0-9]{0,8}m)")
_PROFILE = re.compile(r"[1-7]g\.[0-9]+gb(\.me)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_WORD = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_KEY = rf"({_LABELS}/)?{_WORD}"
_RESOURCE = re.compile(rf"{_LABELS}/{_WORD}")
_SELECTOR = re.compile(rf"{_KEY}=({_WORD})?")
_TAINT = re.compile(rf"{_KEY}(=({_WORD})?)?(:(NoSchedule|PreferNoSchedule|NoExecute))?")
_ANNOTATION = re.compile(rf"{_KEY}=.*", re.DOTALL)


def _matching(form: re.Pattern[str], wanted: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        for text in value if isinstance(value, list) else [value]:
            if not form.fullmatch(text):
                raise ValueError(f"{text!r} is none here; write {wanted}")
        return value

    return read


_name = _matching(_NAME, "small letters, digits and '-' (at most 63), a letter or digit at either end")
_cpu = _matching(_CPU, "a number of CPUs, such as 2 or 500m")
_absolute = _matching(re.compile(r"/[^/\s:]+(/[^/\s:]+)*"), "an absolute path, such as /var/lib/dumbwaiter/ledgers")


def _each_once(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """*read*, of texts ``key=value`` that say each key once: of two values a cluster would take one."""

    def of_all(texts: list[str]) -> Any:
        keys = [text.partition("=")[0] for text in read(texts)]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"{key!r} stands there {keys.count(key)} times; write it once")
        return texts

    return of_all


READERS: Mapping[str, Callable[[Any], Any]] = {
    "namespace": _matching(re.compile(_LABEL), "small letters, digits and '-' (at most 63)"),
    "keda_namespace": _matching(re.compile(_LABEL), "small letters, digits and '-' (at most 63)"),
    "gateway_from": _matching(re.compile(_LABEL), "names of namespaces"),
    **dict.fromkeys(("pull_secret", "secret", "certificates", "storage", "tls_secret"), _name),
    **dict.fromkeys(("ingress_class", "runtime_class", "device_class"), _name),
    **dict.fromkeys(("worker_cpu", "gateway_cpu", "courier_cpu", "scaler_cpu"), _cpu),
    "host": _matching(_HOST, "the name of a host, such as api.example.com"),
    "image": _matching(re.compile(r"[^\s:@/][^\s]*"), "registry.example.com/kitchen:1.4"),
    "monitor": _matching(re.compile(r"https?://[^\s/]+(/[^\s]*)?"), "http://host:port"),
    "gpu_resource": _matching(_RESOURCE, "nvidia.com/gpu"),
    "mig_profile": _matching(_PROFILE, "a profile such as 1g.10gb"),
    "node_ledgers": _absolute,
    "env": _each_once(_matching(_VARIABLE, "NAME=value")),
    "node_selector": _each_once(_matching(_SELECTOR, "a label of nodes: key=value, neither longer than 63")),
    "tolerations": _matching(_TAINT, "a taint: key, key:NoSchedule or key=value:NoSchedule, neither longer than 63"),
    "ingress_annotations": _each_once(_matching(_ANNOTATION, "key=value, the key no longer than 63")),
}
"""What a setting must mean beyond its type; see meanings.meant()."""
