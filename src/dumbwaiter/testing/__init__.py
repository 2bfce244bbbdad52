"""What dumbwaiter's own tests use and users may use too: the broker conformance suite, polling, servers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from dumbwaiter.testing.eventually import eventually

if TYPE_CHECKING:
    from dumbwaiter.testing.conformance import BrokerConformance, Harness, ServerHarness

__all__ = ["BrokerConformance", "Harness", "ServerHarness", "eventually"]


def __getattr__(name: str) -> object:
    """The suite when somebody asks for it: it needs pytest, which a machine that only starts servers may lack."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest  # noqa: PLC0415 - see above

    pytest.register_assert_rewrite("dumbwaiter.testing.conformance")  # before its import: failures show their values
    return getattr(importlib.import_module("dumbwaiter.testing.conformance"), name)
