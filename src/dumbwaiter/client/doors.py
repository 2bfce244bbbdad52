"""Which door a URL means."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dumbwaiter.brokers import ADAPTERS, is_broker_scheme, shown
from dumbwaiter.client.door import Door
from dumbwaiter.errors import ConfigError
from dumbwaiter.message import is_url

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker

API_KEY = "DUMBWAITER_API_KEY"
"""The variable of the environment that holds the API key when none is given."""
_PORT = re.compile(r"[0-9]{1,5}(/.*)?")


def door_to(
    url: str | Broker,
    *,
    blobs: str | BlobStore | None,
    claim_threshold: int,
    tenant: str | None,
    api_key: str | None,
    headers: Mapping[str, str] | None,
    retries: int,
    idempotent: bool,
) -> Door:
    """The door for *url*, not open yet: a gateway's (http, https), a broker's, or an open Broker.

    Raises ConfigError for a URL that names neither, or where a setting is of no use there.
    """
    if not (isinstance(url, str) and is_url(url)):
        if isinstance(url, str):
            _require_broker(url)
        for name, value in (("api_key", api_key), ("headers", headers), ("idempotent", idempotent)):
            if value:
                raise ConfigError(
                    f"{name} is for a gateway, and {_shown(url)} is a broker; leave it out, or give http://…"
                )
        from dumbwaiter.client.broker_door import BrokerDoor  # noqa: PLC0415 - each adapter on demand

        return BrokerDoor(url, blobs, claim_threshold=claim_threshold)
    if blobs is not None:
        raise ConfigError(
            f"blobs is for a broker, and {shown(url)} is a gateway, which has its own store; leave it out"
        )
    from dumbwaiter.client.gateway_door import GatewayDoor  # noqa: PLC0415 - httpx is slow to import

    key = api_key or os.environ.get(API_KEY, "").strip()
    said = dict(headers or {})
    if tenant is not None:
        said["dumbwaiter-tenant"] = tenant
    if key:
        said["authorization"] = f"Bearer {key}"
    return GatewayDoor(url, headers=said, retries=retries, idempotent=idempotent)


def _require_broker(url: str) -> None:
    """Raise ConfigError where *url* is neither a gateway's nor a broker's; most often it is a gateway's, cut short."""
    scheme, colon, rest = url.partition(":")
    if colon and is_broker_scheme(scheme.lower()):
        return
    known = ", ".join(f"{name}:…" for name in sorted(ADAPTERS))
    hint = f"; if you mean a gateway, say http://{url}" if _PORT.fullmatch(rest) else ""
    raise ConfigError(f"{shown(url)!r} names neither a gateway (http://…, https://…) nor a broker ({known}){hint}")


def _shown(url: str | Broker) -> str:
    return shown(url) if isinstance(url, str) else f"a {type(url).__name__}"
