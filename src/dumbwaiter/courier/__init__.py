"""The courier: takes notifications from their queue and posts them to the URLs that callers named."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dumbwaiter.courier.courier import Courier, OnState
from dumbwaiter.outbound import OutboundClient
from dumbwaiter.signals import told_to_stop

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.config import CourierSettings, OutboundSettings
    from dumbwaiter.signing import SigningKey

__all__ = ["Courier", "run_courier"]


async def run_courier(
    broker: Broker,
    store: BlobStore,
    settings: CourierSettings,
    outbound: OutboundSettings,
    signing: SigningKey,
    *,
    public_url: str | None = None,
    stop: asyncio.Event | None = None,
    hurry: asyncio.Event | None = None,
    on_state: OnState | None = None,
) -> int:
    """Deliver on an open broker and store until *stop* is set; the process's exit code.

    It leaves within settings.grace, at once when *hurry* is set. Without *stop*, SIGTERM and SIGINT stop it, and a
    second one makes it hurry. *public_url* is put before the links in bodies. Raises ConfigError when *outbound* names
    a network or host that is none.
    """
    async with OutboundClient(outbound) as client:
        courier = Courier(broker, store, settings, client, signing, public_url=public_url, on_state=on_state)
        with told_to_stop(stop, hurry) as (asked, hurried):
            await courier.run(asked, hurry=hurried)
    return 0
