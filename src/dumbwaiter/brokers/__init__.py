"""Brokers by URL. Adding one: its file, a line in ADAPTERS, an extra in pyproject.toml, and a conformance test."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from dumbwaiter.brokers.contract import Broker

__all__ = ["ADAPTERS", "open_broker", "shown"]

#: URL scheme -> "module:class" of a Broker.
ADAPTERS = {
    "memory": "dumbwaiter.brokers.memory:MemoryBroker",
    "sqlite": "dumbwaiter.brokers.sqlite:SqliteBroker",
}


def open_broker(url: str, *, lock_duration: float | None = None) -> Broker:
    """The broker for *url*, not yet connected: use it with ``async with``.

    *lock_duration* in seconds overrides the default of 30. Raises ConfigError for an unknown scheme.
    """
    from dumbwaiter.brokers.contract import DEFAULT_LOCK_DURATION  # noqa: PLC0415 - keeps `import dumbwaiter` light

    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in ADAPTERS:
        known = ", ".join(f"{name}:" for name in sorted(ADAPTERS))
        raise ConfigError(f"no broker for {shown(url)!r}: its scheme must be one of {known}")
    module, _, name = ADAPTERS[scheme].partition(":")
    adapter: type[Broker] = getattr(importlib.import_module(module), name)
    return adapter(url, lock_duration=lock_duration or DEFAULT_LOCK_DURATION)
