"""dumbwaiter serves deep networks through a message broker: requests wait in a queue, workers pull when they can."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dumbwaiter.client import AsyncClient, AsyncHandle, Client, Handle
    from dumbwaiter.errors import (
        BadInputError,
        DumbwaiterError,
        PermanentError,
        PredictionError,
        PredictionTimeoutError,
        QueueNotFoundError,
        TransientError,
    )
    from dumbwaiter.message import Message

__version__ = "0.1.0"

#: Name -> module. Looked up when first used, so that a model that only raises an error loads nothing else.
_HOMES = {
    "AsyncClient": "dumbwaiter.client",
    "AsyncHandle": "dumbwaiter.client",
    "BadInputError": "dumbwaiter.errors",
    "Client": "dumbwaiter.client",
    "DumbwaiterError": "dumbwaiter.errors",
    "Handle": "dumbwaiter.client",
    "Message": "dumbwaiter.message",
    "PermanentError": "dumbwaiter.errors",
    "PredictionError": "dumbwaiter.errors",
    "PredictionTimeoutError": "dumbwaiter.errors",
    "QueueNotFoundError": "dumbwaiter.errors",
    "TransientError": "dumbwaiter.errors",
}

__all__ = [
    "AsyncClient",
    "AsyncHandle",
    "BadInputError",
    "Client",
    "DumbwaiterError",
    "Handle",
    "Message",
    "PermanentError",
    "PredictionError",
    "PredictionTimeoutError",
    "QueueNotFoundError",
    "TransientError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dumbwaiter' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
