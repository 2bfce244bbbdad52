"""What is known of a broker's native trigger. Pure values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from dumbwaiter.deploy.kubernetes.secrets import Entry
from dumbwaiter.policies.lanes import HIGH, LOW, NORMAL

LANE_NAMES = {HIGH: "high", NORMAL: "normal", LOW: "low"}
"""What the triggers of lanes are called, and so what stands in a formula."""


def any_of(names: Iterable[str]) -> str:
    """An expression for one of *names* and no other: a queue's dead letters and delays have names that begin alike.

    Of the letters that names of queues have, only the dot means something in expressions.
    """
    return f"^({'|'.join(names)})$".replace(".", "[.]")


class Trigger(msgspec.Struct, frozen=True):
    """One trigger: its *name* in a formula, KEDA's *type* and its *metadata*."""

    name: str
    type: str
    metadata: dict[str, str]


class Native(msgspec.Struct, frozen=True, kw_only=True):
    """Triggers whose sum, or another *formula* of them, is what waits and runs in one queue.

    *secrets*: parameter of the trigger -> the key of the Secret that it comes from. *files*: the same, of the Secret
    with certificates. *entries* are keys that the Secret must have besides. *identity*: whether the cloud's own
    identity is used instead. *note* is what a reader should know.
    """

    triggers: list[Trigger]
    formula: str | None = None
    secrets: dict[str, str] = {}
    files: dict[str, str] = {}
    entries: list[Entry] = []
    identity: bool = False
    note: str = ""

    @property
    def logs_in(self) -> bool:
        """Whether KEDA must be shown something to read the counts: a secret, a certificate or an identity."""
        return bool(self.secrets or self.files or self.identity)


class Triggers(msgspec.Struct, frozen=True):
    """A ScaledObject's *triggers*; with a *formula* that is compared with *target*, or each with its own."""

    triggers: list[dict[str, Any]]
    formula: str | None = None
    target: str = "1"
    native: Native | None = None
