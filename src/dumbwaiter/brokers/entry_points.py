"""Adapters of other distributions: an installed one names its schemes as entry points, and any command can open them.

Read only for a scheme that none of ours has, for that looks through all that is installed.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from dumbwaiter.errors import ConfigError
from dumbwaiter.printable import printable

if TYPE_CHECKING:
    from dumbwaiter.brokers.contract import Broker

GROUP = "dumbwaiter.brokers"
"""Of entry points; the name of each is a URL scheme, and its value ``module:class`` of a Broker."""


def schemes() -> list[str]:
    """Those that other distributions have adapters for, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def adapter_of(scheme: str) -> type[Broker] | None:
    """The class that an installed distribution names for *scheme*; None where none does.

    Raises ConfigError, naming the distribution: two name different ones, or it cannot be loaded, or is no Broker.
    """
    points = {point.value: point for point in entry_points(group=GROUP, name=scheme)}
    if not points:
        return None
    if len(points) > 1:
        named = " and ".join(sorted(map(_named, points.values())))
        raise ConfigError(f"{scheme}: is served by {named}; uninstall all but one of them")
    (point,) = points.values()
    return _loaded(point)


def _loaded(point: EntryPoint) -> type[Broker]:
    from dumbwaiter.brokers.contract import Broker  # noqa: PLC0415 - keeps `import dumbwaiter` light

    try:
        adapter = point.load()
    except Exception as error:  # it is the code of others, and may fail in any way
        why = printable(f"{type(error).__name__}: {error}")
        raise ConfigError(f"the adapter for {point.name}: cannot be loaded from {_named(point)}: {why}") from error
    if not (isinstance(adapter, type) and issubclass(adapter, Broker)):
        raise ConfigError(f"the adapter for {point.name}: from {_named(point)} is no Broker; tell its author")
    return adapter


def _named(point: EntryPoint) -> str:
    return f"{point.dist.name if point.dist else 'a distribution without a name'} ({point.value})"
