"""Here, so that the tests of all brokers find servers.py beside it."""

from __future__ import annotations

import pytest

from certificates import make_certificate


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for the loopback address that vouches for itself, and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"))
