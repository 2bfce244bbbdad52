"""What can be wrong with a device's ledger. Each text names the file, the reason and the next step."""

from __future__ import annotations

from pathlib import Path

from dumbwaiter.errors import DumbwaiterError


class LedgerError(DumbwaiterError):
    """Base of what the ledger at *path* raises."""

    def __init__(self, path: Path, reason: str, next_step: str) -> None:
        self.path = path
        self.reason = reason
        self.next_step = next_step
        super().__init__(f"the ledger {path} {reason}; {next_step}")


class LedgerRefusedError(LedgerError):
    """The file, or its folder, cannot be this device's ledger: trying again cannot help."""


class LedgerBusyError(LedgerError):
    """Another process has had its turn for longer than a turn may be waited for: *waited* seconds."""

    def __init__(self, path: Path, waited: float, holder: str | None) -> None:
        self.waited = waited
        self.holder = holder
        super().__init__(
            path,
            f"has been locked for {waited:.1f} s by {holder or 'a process that cannot be named from here'}",
            f"continue that process (kill -CONT) or end it; `fuser -v {path}` in each container lists who has it open",
        )


class LedgerFullError(LedgerError):
    """The disk, or the ledger, has no room for another seat, or the disk none for what a seat says."""


class LedgerGoneError(LedgerError):
    """The file was removed or begun anew while this process had it open, or the ledger was closed."""
