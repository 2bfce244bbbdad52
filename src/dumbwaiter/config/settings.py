"""What can be set: one struct per table of dumbwaiter.toml. The runtimes take these structs as their options.

Sizes in bytes, times in seconds.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from dumbwaiter.config.kubernetes import KubernetesSettings
from dumbwaiter.config.quantities import (
    Count,
    MaybeNbytes,
    MaybeSeconds,
    Nbytes,
    Port,
    Replicas,
    Seconds,
    SecondsKept,
    Span,
)
from dumbwaiter.config.scaler import ScalerSettings
from dumbwaiter.config.scaling import ScalingSettings

SHORTEST_SIGNING_KEY = 32
"""Bytes of gateway.signing_key, at the least."""


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a gateway behaves. Port 0 takes a free one.

    *body_limit* bounds a request's body, *header_limit* its head, and *memory_limit* the bodies of all requests that
    are in memory at once; those above *claim_threshold* stream through the blob store. *header_timeout* bounds the wait
    for a complete request head, from the first byte or, on a fresh connection, from the start. *body_timeout* bounds
    the body; every 64 KiB that arrive add a second. *write_timeout* bounds how long a caller may leave a response
    unread; every 64 KiB that it takes add a second. Neither lets anybody pause for longer than it is. *idle_timeout* is
    how long a connection may rest between two requests. *share_port* lets several gateways listen at one address
    (Linux). *grace* is how long waiting requests may take once told to stop.

    *auth* says whether callers need an API key; ``auto``: unless it listens on loopback. *signing_key* signs the ids of
    predictions and the secrets of webhooks (None: one that all gateways of a blob store share). *public_url* is put
    before the paths of the links in answers. *certfile* and *keyfile* (PEM) switch TLS on. *cors_origins*: the web
    pages that may call (``*``: all). *docs*: whether to serve the pages for people. *results_kept_for*: how long a
    kept result can be fetched (0: for ever). *log_requests*: a line of the log for each request, with its model and
    size.
    """

    host: str = "127.0.0.1"
    port: Port = 8080
    body_limit: Nbytes = 32 * 1024 * 1024
    header_limit: Nbytes = 32 * 1024
    default_patience: Seconds = 60.0
    max_patience: Seconds = 600.0
    claim_threshold: Nbytes = 256 * 1024
    header_timeout: Seconds = 10.0
    body_timeout: Seconds = 30.0
    write_timeout: Seconds = 30.0
    idle_timeout: Seconds = 5.0
    max_connections: Count = 4096
    share_port: bool = False
    grace: Seconds = 30.0
    memory_limit: Nbytes = 256 * 1024 * 1024
    auth: Literal["auto", "on", "off"] = "auto"
    signing_key: str | None = None
    public_url: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    cors_origins: list[str] = []
    docs: bool = True
    log_requests: bool = False
    results_kept_for: SecondsKept = 7 * 86400.0

    @property
    def needs_keys(self) -> bool:
        """Whether callers need an API key."""
        return self.auth == "on" or (self.auth == "auto" and not is_loopback(self.host))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on *host*."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker behaves, whatever its model.

    *grace*: how long after SIGTERM a running batch may still take; *claim_threshold*: replies above so many bytes
    travel by claim check; *max_nbytes_in_hand*: no further large body is fetched while the runner has so many bytes;
    *receive_wait*: how long one receive waits for messages; *load_timeout*: how long the model's constructor may take.
    *spot*: the cloud whose notice that it takes this machine is heeded; *spot_url*: where its metadata service is, if
    not where that cloud has it.
    """

    grace: Seconds = 25.0
    claim_threshold: Nbytes = 256 * 1024
    max_nbytes_in_hand: Nbytes = 256 * 1024 * 1024
    receive_wait: Seconds = 20.0
    load_timeout: Seconds = 600.0
    spot: Literal["off", "aws", "gcp", "azure"] = "off"
    spot_url: str | None = None


class CourierSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a courier delivers webhooks and replies: each try takes at most *timeout*, *concurrency* are under way at
    once, of which *per_host* to one host; *grace*: how long after SIGTERM those under way may take.
    """

    timeout: Seconds = 15.0
    concurrency: Count = 64
    per_host: Count = 16
    grace: Seconds = 20.0


class OutboundSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which URLs named by callers may be reached: inputs, webhooks, reply addresses.

    By default any public host, by https alone. *allow_http* allows plain http. *allowed_hosts*, when not empty, are the
    only hosts (``hooks.example.com``, ``*.example.com``). *allowed_networks* are networks within (``10.1.2.0/24``) that
    may be reached although they are not public. *fetch_limit* bounds what is fetched, in bytes, *fetch_timeout* how
    long that may take.
    """

    allow_http: bool = False
    allowed_hosts: list[str] = []
    allowed_networks: list[str] = []
    fetch_limit: Nbytes = 64 * 1024 * 1024
    fetch_timeout: Seconds = 30.0


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One model; see models.contract.ModelSpec. *replicas* is how many worker processes ``serve`` starts for it, unless
    *scaling* has max_replicas: then they follow the work.

    *device* is an address for devices.opening, ``none``, or ``auto``: the first visible GPU is shared out among the
    workers that use it, and without a GPU nothing is. *footprint* is what its weights and a batch's activation take in
    all, in bytes, instead of being measured. *weight* is its share of the device against that of other models. Once it
    was idle for *park_after* seconds, its weights leave the device.
    """

    target: str | None = None
    weights: str | None = None
    project: str | None = None
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=2048)] | None = None
    latency_target: MaybeSeconds = None
    max_pixels: Count = 50_000_000
    timeout: Seconds = 120.0
    max_deliveries: Count = 3
    decode_threads: Count = 2
    replicas: Replicas = 1
    device: str = "auto"
    footprint: MaybeNbytes = None
    weight: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    park_after: Seconds = 300.0
    scaling: ScalingSettings = ScalingSettings()
    parameters: dict[str, Any] = {}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings, with paths made absolute. *home* is the project's folder: that of the file, or the current one.

    *slots* is a folder of this machine's, in which workers and couriers write down what they hold, so that the next one
    can hand it back at once when one is killed. *ledgers* is the folder in which the workers of this machine, or of all
    containers of a pod, say what they hold of their devices (None: see ledgers_folder); *footprints* is where what a
    model was measured to take of a device is kept. *heartbeat* is a file in which a runtime gives signs of life.
    """

    broker: str = "sqlite:.dumbwaiter/queue.db"
    blobs: str = "file:.dumbwaiter/blobs"
    slots: str = ".dumbwaiter/slots"
    ledgers: str | None = None
    footprints: str = ".dumbwaiter/footprints"
    heartbeat: str | None = None
    lock_duration: Span = 30.0
    log_format: Literal["auto", "human", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    gateway: GatewaySettings = GatewaySettings()
    worker: WorkerSettings = WorkerSettings()
    courier: CourierSettings = CourierSettings()
    outbound: OutboundSettings = OutboundSettings()
    scaling: ScalingSettings = ScalingSettings()
    scaler: ScalerSettings = ScalerSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    models: dict[str, ModelSettings] = {}
    home: str = "."


TABLES: Mapping[str, type[msgspec.Struct]] = {
    "gateway": GatewaySettings,
    "worker": WorkerSettings,
    "courier": CourierSettings,
    "outbound": OutboundSettings,
    "scaling": ScalingSettings,
    "scaler": ScalerSettings,
    "kubernetes": KubernetesSettings,
}
"""The tables of settings beside ``models``, whose tables have names of their own."""
