"""Settings that must mean something beyond their type: origins, URLs, networks, secrets, devices."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

from dumbwaiter.config import kubernetes
from dumbwaiter.config.lines import Keys
from dumbwaiter.config.settings import SHORTEST_SIGNING_KEY
from dumbwaiter.config.units import parse_size
from dumbwaiter.spelling import did_you_mean

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_PUBLIC_URL = re.compile(r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(/[^\s?#]*)?", re.IGNORECASE)
_KINDS = ("auto", "none", "cuda", "host", "fake")
_DEVICE = re.compile(
    r"auto|none|cuda(:([0-9]+|(GPU|MIG)-.+))?|host(:(?P<budget>.+))?|fake:(?P<capacity>[^?]+)\?(.+&)?path=[^&]+(&.*)?"
)
_DEVICE_FORMS = "auto, none, cuda, cuda:1, cuda:GPU-UUID, cuda:MIG-UUID, host, host:8GiB or fake:8GiB?path=FOLDER"


def meant(keys: Keys, value: Any) -> Any:
    """*value* of the setting *keys*, in the form that is compared. Raises ValueError, saying what is wrong with it."""
    read = _MODEL_READERS.get(keys[2]) if keys[0] == "models" and len(keys) == 3 else _READERS.get(keys)
    return value if read is None or value is None else read(value)


def _origins(texts: list[str]) -> list[str]:
    return [_origin(text) for text in texts]


def _origin(text: str) -> str:
    """*text* as a browser sends it (https://www.rfc-editor.org/rfc/rfc6454#section-6.2), or ``*``."""
    origin = text.lower()
    if origin != "*" and not _ORIGIN.fullmatch(origin):
        wanted = "write https://app.example.com, with its port if it has one and without a path, or * for all pages"
        raise ValueError(f"{text!r} is no origin; {wanted}")
    return origin


def _public_url(url: str) -> str:
    """*url*, to which paths can be put."""
    if not _PUBLIC_URL.fullmatch(url):
        wanted = "write https://api.example.com, with its port and the path that the gateway is below, if any"
        raise ValueError(f"{url!r} is no URL to put before paths; {wanted}")
    return url


def _service_url(url: str) -> str:
    """*url*, of a service that is asked by plain HTTP."""
    if not _PUBLIC_URL.fullmatch(url):
        raise ValueError(f"{url!r} is no URL of a service; write http://169.254.169.254")
    return url


def _signing_key(key: str) -> str:
    """*key*, long enough. What it is is never told."""
    nbytes = len(key.encode(errors="surrogateescape"))
    if nbytes < SHORTEST_SIGNING_KEY:
        wanted = f"it needs at least {SHORTEST_SIGNING_KEY}: openssl rand -hex {SHORTEST_SIGNING_KEY}"
        raise ValueError(f"it has {nbytes} bytes; {wanted}")
    return key


def _networks(texts: list[str]) -> list[str]:
    for text in texts:
        try:
            ipaddress.ip_network(text)
        except ValueError:
            raise ValueError(f"{text!r} is no network; {_instead_of(text)}") from None
    return texts


def _instead_of(text: str) -> str:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return "write one such as 10.1.2.0/24"
    return f"write {network}, or {text.partition('/')[0]} for this one address"


def _device(address: str) -> str:
    """*address*, if it has the form of one; whether there is such a device is seen when it is opened."""
    match = _DEVICE.fullmatch(address)
    if match is None:
        kind = address.partition(":")[0]
        near = "" if kind in _KINDS else did_you_mean(kind, _KINDS)
        raise ValueError(f"{address!r} names no device; write {_DEVICE_FORMS}{near}")
    if size := match["budget"] or match["capacity"]:
        try:
            _positive(parse_size(size))
        except ValueError as error:
            raise ValueError(f"{address!r}: {error}") from None
    return address


def _positive(nbytes: int) -> int:
    if nbytes <= 0:
        raise ValueError(f"expected a size above 0, such as 3GiB, not {nbytes}")
    return nbytes


_MODEL_READERS: Mapping[str, Callable[[Any], Any]] = {"device": _device, "footprint": _positive}
_READERS: Mapping[Keys, Callable[[Any], Any]] = {
    ("gateway", "cors_origins"): _origins,
    ("gateway", "public_url"): _public_url,
    ("gateway", "signing_key"): _signing_key,
    ("outbound", "allowed_networks"): _networks,
    ("worker", "spot_url"): _service_url,
    **{("kubernetes", name): read for name, read in kubernetes.READERS.items()},
}
