"""A scaler over a queue in a file."""

from __future__ import annotations

import pytest
from keda_client import Keda
from scaler_running import cooking


@pytest.fixture
async def kitchen(tmp_path):
    async with cooking(f"sqlite:{tmp_path}/queue.db", tmp_path) as kitchen:
        yield kitchen


@pytest.fixture
async def keda(kitchen):
    async with Keda(kitchen.doors.grpc_port) as keda:
        yield keda
