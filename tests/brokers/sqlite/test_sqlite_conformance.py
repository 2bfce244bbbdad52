"""The SQLite broker keeps every rule of the contract."""

from __future__ import annotations

import pytest

from dumbwaiter.testing import BrokerConformance, Harness


class TestSqliteBroker(BrokerConformance):
    @pytest.fixture
    def harness(self, tmp_path):
        return Harness(f"sqlite://{tmp_path}/queue.db")
