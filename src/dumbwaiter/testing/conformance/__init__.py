"""The rules that every broker adapter keeps, as tests. Subclass BrokerConformance and say how to reach the broker:

    import pytest
    from dumbwaiter.testing import BrokerConformance, Harness
    from my_broker import MyBroker

    class TestMyBroker(BrokerConformance):
        @pytest.fixture
        def harness(self, tmp_path):
            return Harness(f"mybroker://{tmp_path}/queues", adapter=MyBroker)

For a product with a server of its own it is a ServerHarness, so that the suite can kill the server.

One test is one rule. Rules that not every product can keep are switched by the adapter's Capabilities; a rule that
was not checked is skipped with RULE NOT CHECKED and the reason.
"""

from __future__ import annotations

from typing import ClassVar

import pytest

from dumbwaiter.testing.conformance.crashing import CrashingRules
from dumbwaiter.testing.conformance.foreign import ForeignRules
from dumbwaiter.testing.conformance.harness import Harness, ServerHarness
from dumbwaiter.testing.conformance.inboxes import InboxRules
from dumbwaiter.testing.conformance.locking import LockingRules
from dumbwaiter.testing.conformance.looking import LookingRules
from dumbwaiter.testing.conformance.positions import PositionRules
from dumbwaiter.testing.conformance.receiving import ReceivingRules
from dumbwaiter.testing.conformance.sending import SendingRules
from dumbwaiter.testing.conformance.settling import SettlingRules
from dumbwaiter.testing.conformance.takeover import TakeoverRules

__all__ = ["BrokerConformance", "Harness", "ServerHarness"]


class BrokerConformance(
    SendingRules,
    ReceivingRules,
    LockingRules,
    SettlingRules,
    LookingRules,
    PositionRules,
    InboxRules,
    CrashingRules,
    TakeoverRules,
    ForeignRules,
):
    """All rules. The subclass has a fixture ``harness``: a Harness on a server or namespace of its own, per test."""

    pytestmark: ClassVar = [pytest.mark.anyio]

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Brokers are made for asyncio."""
        return "asyncio"
