"""What a worker says of itself in the blob store: its state, every few seconds, and its model's card."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec

from dumbwaiter.blobs import presence
from dumbwaiter.blobs.cards import ModelCard, save_card
from dumbwaiter.blobs.presence import WorkerStatus
from dumbwaiter.blobs.profiles import ServiceProfile, add_to_profile
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.errors import BlobError
from dumbwaiter.tasks import end
from dumbwaiter.worker.pod_cost import PodCost
from dumbwaiter.worker.workload import Workload

_log = logging.getLogger(__name__)
_ADD_EVERY = 60.0
_NOTICEABLE = 0.2
OnStatus = Callable[[WorkerStatus], None]


class Announcer:
    """One worker's status, and what it adds to its model's profile.

    *on_status* hears of each change; *measured* adds what was measured whenever the status is announced. *workload* has
    the news for the profile.
    """

    def __init__(
        self,
        store: BlobStore,
        model: str,
        workload: Workload,
        *,
        on_status: OnStatus | None,
        measured: Callable[[WorkerStatus], WorkerStatus],
    ) -> None:
        self._store = store
        self._on_status = on_status
        self._measured = measured
        self._workload = workload
        self._now = asyncio.Event()
        self._card: dict[str, Any] = {}
        self._profile: ServiceProfile | None = None
        self._added_at = 0.0
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.status = WorkerStatus(worker=name, model=model, state="loading", started_at=time.time())

    def note_state(self, state: str, reason: str, signature: dict[str, Any]) -> None:
        """The worker is in *state* now; an empty *signature* is no news."""
        self.status = msgspec.structs.replace(
            self.status,
            state=state,
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
        costing = PodCost.here()
        telling = None if costing is None else asyncio.create_task(costing.run(self._seconds_in_hand))
        try:
            await self._announce_for_ever()
        finally:
            await end([telling])

    def _seconds_in_hand(self) -> float:
        """Work that this worker holds. Where nothing was measured yet, a second each."""
        measured = self._measured(self.status)
        return measured.in_hand * (measured.seconds_each or 1.0)

    async def _announce_for_ever(self) -> None:
        while True:
            self._now.clear()
            try:
                await presence.announce(self._store, self._measured(self.status))
                await self._keep_card()
                await self._add_to_profile()
            except BlobError as error:
                _log.warning("this worker cannot announce itself: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(presence.ANNOUNCE_EVERY):
                    await self._now.wait()

    async def withdraw(self) -> None:
        """Say goodbye, and leave behind what the next one may know."""
        with contextlib.suppress(BlobError):
            if self._workload.has_news:
                await add_to_profile(self._store, self._workload.take(time.time()), time.time())
        with contextlib.suppress(BlobError):
            await presence.withdraw(self._store, self.status.model, self.status.worker)

    async def _add_to_profile(self) -> None:
        """Now and then, and when an input takes noticeably longer or shorter than is known."""
        if not self._workload.has_news or not self._is_worth_telling(time.time()):
            return
        # Taken before: should the store fail, these few seconds are lost and the next ones say the same.
        news, self._added_at = self._workload.take(time.time()), time.monotonic()
        self._profile = await add_to_profile(self._store, news, time.time())

    def _is_worth_telling(self, now: float) -> bool:
        if self._profile is None or time.monotonic() - self._added_at >= _ADD_EVERY:
            return True
        mean, known = self._workload.mean, self._profile.seconds_each(now)
        return mean is not None and (known is None or abs(mean - known) > _NOTICEABLE * known)

    async def _keep_card(self) -> None:
        """Gateways describe the model by its card, also when all its workers are gone."""
        signature = self.status.signature
        if self.status.state == "ready" and signature != self._card:
            await save_card(self._store, ModelCard(name=self.status.model, signature=signature))
            self._card = signature
