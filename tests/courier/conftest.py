"""A broker of each kind, a store, and couriers between them and receivers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import secrets

import pytest

from dumbwaiter.blobs import open_store
from dumbwaiter.brokers import open_broker
from dumbwaiter.config import CourierSettings, OutboundSettings
from dumbwaiter.courier import run_courier
from dumbwaiter.message import WEBHOOKS_QUEUE
from dumbwaiter.signing import SigningKey

HERE = OutboundSettings(allow_http=True, allowed_networks=["127.0.0.1/32"])
KEY = SigningKey(b"k" * 32)


@pytest.fixture(params=["memory", "sqlite"])
async def broker(request, tmp_path):
    url = f"memory://{secrets.token_hex(8)}" if request.param == "memory" else f"sqlite://{tmp_path}/queue.db"
    async with open_broker(url, lock_duration=2.0) as broker:
        await broker.create_queue(WEBHOOKS_QUEUE)
        yield broker


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path}/blobs")


@pytest.fixture
async def courier(broker, store):
    """Start couriers with settings of their own; they are stopped at the end, and must end well."""
    running = []

    def start(outbound=HERE, public_url=None, on_state=None, store=store, broker=broker, **settings):
        stop, hurry = asyncio.Event(), asyncio.Event()
        chosen = CourierSettings(**{"timeout": 5.0, "grace": 5.0, **settings})
        task = asyncio.create_task(
            run_courier(
                broker, store, chosen, outbound, KEY, public_url=public_url, stop=stop, hurry=hurry, on_state=on_state
            )
        )
        running.append((task, stop, hurry))
        return running[-1]

    yield start
    for task, stop, hurry in running:
        stop.set()
        hurry.set()
        with contextlib.suppress(asyncio.CancelledError):
            assert await task == 0
