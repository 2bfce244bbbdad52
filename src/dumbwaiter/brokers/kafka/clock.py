"""What the clock of a ledger shows, told from the times on its records. Pure."""

from __future__ import annotations

FORGET_AFTER = 60_000
"""Milliseconds after which a difference is measured anew: both clocks run on their own."""


class LedgerClock:
    """The clock whose time is on a ledger's records, which may be set at any time. All times are in milliseconds;
    *here* is what a clock of ours shows that is never set.

    Until a record comes, the best guess is our own clock of the day, which showed *guess* at *here*.
    """

    def __init__(self, *, guess: int, here: int) -> None:
        self._ahead = guess - here
        self._is_guess = True
        self._noted_at = here

    def note_old(self, written: int, here: int) -> None:
        """Somebody wrote a record at *written*, long ago perhaps: the clock is not behind that."""
        self._ahead = max(self._ahead, written - here)

    def note(self, written: int, here: int) -> None:
        """A record that was written at *written* has just come: the clock is ahead of ours by so much at least."""
        ahead = written - here
        if self._is_guess or ahead >= self._ahead or here > self._noted_at + FORGET_AFTER:
            self._ahead, self._noted_at, self._is_guess = ahead, here, False

    def note_ours(self, written: int, begun: int, here: int) -> None:
        """As note(), of a record that we began to write at *begun*: so the clock is ahead by so much at most, too."""
        self.note(written, here)
        self._ahead = min(self._ahead, written - begun)

    def now(self, here: int) -> int:
        """What it shows, in milliseconds since the Unix epoch."""
        return here + self._ahead
