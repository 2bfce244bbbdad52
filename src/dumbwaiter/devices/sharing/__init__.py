"""Sharing a device with other workers: what the ledger says, what the policy decides, and one worker's part in it."""

from dumbwaiter.devices.sharing.opening import footprint_key, ledger_path, open_admission
from dumbwaiter.devices.sharing.terms import Terms

__all__ = ["Terms", "footprint_key", "ledger_path", "open_admission"]
