"""The in-memory broker keeps every rule of the contract, and some promises of its own."""

from __future__ import annotations

import secrets

import pytest

from dumbwaiter.testing import BrokerConformance, Harness


class TestMemoryBroker(BrokerConformance):
    @pytest.fixture
    def harness(self):
        return Harness(f"memory://{secrets.token_hex(8)}", lock_duration=0.3)
