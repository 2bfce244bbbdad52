"""What a worker says of itself in the blob store: its state, every few seconds, and its model's card."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from dumbwaiter.blobs import presence
from dumbwaiter.blobs.cards import ModelCard, save_card
from dumbwaiter.blobs.presence import WorkerStatus
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.errors import BlobError

_log = logging.getLogger(__name__)
OnStatus = Callable[[WorkerStatus], None]


class Announcer:
    """One worker's status. *on_status* hears of each change; *seconds_each* is asked whenever it is announced."""

    def __init__(
        self, store: BlobStore, model: str, *, on_status: OnStatus | None, seconds_each: Callable[[], float]
    ) -> None:
        self._store = store
        self._on_status = on_status
        self._seconds_each = seconds_each
        self._now = asyncio.Event()
        self._card: dict[str, Any] = {}
        self.status = WorkerStatus(worker=f"{os.getpid()}-{secrets.token_hex(4)}", model=model, state="loading")

    def note_state(self, state: str, reason: str, signature: dict[str, Any]) -> None:
        """The worker is in *state* now; an empty *signature* is no news."""
        self.status = WorkerStatus(
            worker=self.status.worker,
            model=self.status.model,
            state=state,  # type: ignore[arg-type]
            reason=reason,
            signature=signature or self.status.signature,
        )
        self._now.set()
        if self._on_status is not None:
            self._on_status(self.status)

    def note_measured(self) -> None:
        """It is known for the first time how long an input takes: gateways admit callers by that."""
        self._now.set()

    async def run(self) -> None:
        """Announce each change at once, and the rest as often as presence wants, until cancelled."""
        with contextlib.suppress(BlobError):  # housekeeping: the next worker to start tries again
            await presence.forget_the_dead(self._store, self.status.model)
        while True:
            self._now.clear()
            try:
                measured = msgspec.structs.replace(self.status, seconds_each=self._seconds_each())
                await presence.announce(self._store, measured)
                await self._keep_card()
            except BlobError as error:
                _log.warning("this worker cannot announce itself: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(presence.ANNOUNCE_EVERY):
                    await self._now.wait()

    async def withdraw(self) -> None:
        """Say goodbye."""
        with contextlib.suppress(BlobError):
            await presence.withdraw(self._store, self.status.model, self.status.worker)

    async def _keep_card(self) -> None:
        """Gateways describe the model by its card, also when all its workers are gone."""
        signature = self.status.signature
        if self.status.state == "ready" and signature != self._card:
            await save_card(self._store, ModelCard(name=self.status.model, signature=signature))
            self._card = signature
