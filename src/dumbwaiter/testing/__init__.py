"""What dumbwaiter's own tests use and users may use too: the broker conformance suite and bounded polling."""

import pytest

pytest.register_assert_rewrite("dumbwaiter.testing.conformance")  # before its import: failures then show their values

from dumbwaiter.testing.conformance import BrokerConformance, Harness, ServerHarness  # noqa: E402
from dumbwaiter.testing.eventually import eventually  # noqa: E402

__all__ = ["BrokerConformance", "Harness", "ServerHarness", "eventually"]
