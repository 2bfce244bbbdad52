"""A broker and a store of its own for each test of the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dumbwaiter.blobs import BlobStore, open_store
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.brokers.memory import MemoryBroker


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio", {"use_uvloop": True}  # as the gateway runs in a process of its own


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with MemoryBroker("memory:") as broker:
        yield broker


@pytest.fixture
def store(tmp_path) -> BlobStore:
    return open_store(f"file://{tmp_path}/blobs")
