"""Serve one model until told to stop."""

from __future__ import annotations

import asyncio

from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.config import OutboundSettings, WorkerSettings
from dumbwaiter.devices.admission import Admission
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.signals import told_to_stop
from dumbwaiter.worker.announcing import OnStatus
from dumbwaiter.worker.consumer import OUTBOUND, Consumer


async def run_worker(
    broker: Broker,
    store: BlobStore,
    spec: ModelSpec,
    options: WorkerSettings,
    *,
    outbound: OutboundSettings = OUTBOUND,
    admission: Admission | None = None,
    on_status: OnStatus | None = None,
    stop: asyncio.Event | None = None,
    hurry: asyncio.Event | None = None,
) -> int:
    """Serve *spec* on an open broker and store until *stop* is set; the process's exit code.

    It leaves within options.grace, at once when *hurry* is set. Without *stop*, SIGTERM and SIGINT stop it, and a
    second one makes it hurry. *outbound* says which URLs inputs may be fetched from; *admission* grants what may be
    pulled (None: anything).
    """
    consumer = Consumer(broker, store, spec, options, outbound=outbound, admission=admission, on_status=on_status)
    with told_to_stop(stop, hurry) as (asked, hurried):
        await consumer.run(asked, hurry=hurried)
    return 0
