"""The suite on librdkafka's mock cluster: three brokers, and four partitions in each lane."""

from __future__ import annotations

import pytest
from mock_cluster import MockCluster, MockKafkaBroker

from dumbwaiter.testing import BrokerConformance, Harness


@pytest.fixture(scope="module")
def cluster():
    cluster = MockCluster()
    yield cluster
    cluster.stop()


@pytest.mark.trial
class TestMockCluster(BrokerConformance):
    """All rules but those that kill the server: it keeps nothing, and tells clients its own address only."""

    @pytest.fixture
    def harness(self, cluster):
        return Harness(
            f"kafka://{cluster.servers}?partitions=4&fetch_wait=0.05", adapter=MockKafkaBroker, lock_duration=1.0
        )
