"""What dumbwaiter's own tests use and users may use too: the broker conformance suite, polling, servers."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from dumbwaiter.testing.eventually import eventually

if TYPE_CHECKING:
    from dumbwaiter.testing.conformance import BrokerConformance, Harness, ServerHarness

__all__ = ["BrokerConformance", "Harness", "ServerHarness", "eventually"]


_SUITE = "dumbwaiter.testing.conformance"


def _show_values_of_failures() -> None:
    """To be called before the suite is imported, by whatever way."""
    import pytest  # noqa: PLC0415 - a machine that only starts servers may lack it

    if _SUITE not in sys.modules:
        pytest.register_assert_rewrite(_SUITE)


if "pytest" in sys.modules:
    _show_values_of_failures()


def __getattr__(name: str) -> object:
    """The suite when somebody asks for it: it needs pytest."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _show_values_of_failures()
    return getattr(importlib.import_module(_SUITE), name)
