"""The ledger of a device: one file in which all processes that use the device say what they hold there."""

from dumbwaiter.devices.ledger.errors import (
    LedgerBusyError,
    LedgerError,
    LedgerFullError,
    LedgerGoneError,
    LedgerRefusedError,
)
from dumbwaiter.devices.ledger.ledger import Ledger, Turn, Unknown, now
from dumbwaiter.devices.ledger.seats import Seat, adopt

__all__ = [
    "Ledger",
    "LedgerBusyError",
    "LedgerError",
    "LedgerFullError",
    "LedgerGoneError",
    "LedgerRefusedError",
    "Seat",
    "Turn",
    "Unknown",
    "adopt",
    "now",
]
