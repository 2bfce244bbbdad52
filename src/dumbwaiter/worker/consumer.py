"""The consumer: pulls what the runner can take, keeps the locks, and leaves in good order.

It never imports the model: whatever the model does to its process, the consumer lives to hand the messages back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from dumbwaiter.blobs import presence
from dumbwaiter.blobs.claimcheck import check_out
from dumbwaiter.blobs.presence import WorkerStatus
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.config import WorkerSettings
from dumbwaiter.devices.admission import Admission, Unlimited
from dumbwaiter.errors import BadInputError, BlobError, BrokerUnavailableError
from dumbwaiter.message import Failure, Timings
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.policies.batching import pull_size, was_nearly_full
from dumbwaiter.policies.retrying import Fault, back_off, most_deliveries, must_be_alone
from dumbwaiter.worker.hand import Hand, Held
from dumbwaiter.worker.keeper import RunnerKeeper
from dumbwaiter.worker.settling import Outcome, Settler, failure, renew

_FETCHES_AT_ONCE = 4
_log = logging.getLogger(__name__)
OnStatus = Callable[[WorkerStatus], None]


class Consumer:
    """One model's worker on an open broker and store. run() serves until *stop* is set."""

    def __init__(
        self,
        broker: Broker,
        store: BlobStore,
        spec: ModelSpec,
        options: WorkerSettings,
        *,
        admission: Admission | None = None,
        on_status: OnStatus | None = None,
    ) -> None:
        self._broker = broker
        self._store = store
        self._spec = spec
        self._options = options
        self._admission = admission or Unlimited()
        self._on_status = on_status
        self._hand = Hand()
        self._changed = asyncio.Event()
        self._settler = Settler(
            broker, store, self._hand, claim_threshold=options.claim_threshold, changed=self._changed
        )
        self._keeper = RunnerKeeper(
            spec, self._hand, self._settler, options, changed=self._changed, on_state=self._note_state
        )
        self._status = WorkerStatus(worker=f"{os.getpid()}-{secrets.token_hex(4)}", model=spec.name, state="loading")
        self._announce_now = asyncio.Event()
        self._last_was_full = False

    async def run(self, stop: asyncio.Event, *, hurry: asyncio.Event | None = None) -> None:
        """Serve until *stop*; then finish or hand back what is in hand, within the grace (*hurry*: at once)."""
        await self._create_queue(stop)
        keeping = asyncio.create_task(self._keeper.run())
        chores = [asyncio.create_task(chore()) for chore in (self._pull, self._renew_locks, self._announce)]
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({keeping, *chores, stopping}, return_when=asyncio.FIRST_COMPLETED)
            faulty = [task for task in (keeping, *chores) if task.done()]
            await self._leave(keeping, chores, hurry)
            for task in faulty:
                task.result()  # a fault of ours: raise it rather than serve on half dead
        finally:
            # Also when this call was cancelled, while it left or before: nothing of ours may live on.
            await _end(stopping, *chores, keeping)
            await self._settler.close()

    async def _leave(
        self, keeping: asyncio.Task[None], chores: Sequence[asyncio.Task[None]], hurry: asyncio.Event | None
    ) -> None:
        """Stop pulling; drain the runner; end it; settle; say goodbye. Locks are renewed until the end."""
        pulling, renewing, announcing = chores
        await _end(pulling)
        self._note_state("draining", "", {})
        started = time.monotonic()
        draining = asyncio.create_task(self._keeper.drain(self._options.grace * 0.8))
        hurrying = asyncio.create_task((hurry or asyncio.Event()).wait())
        await asyncio.wait({draining, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        await _end(draining, hurrying, keeping)
        left = max(0.5, self._options.grace * 0.95 - (time.monotonic() - started))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settler.settled(), left)
        await _end(renewing, announcing)
        with contextlib.suppress(BlobError):
            await presence.withdraw(self._store, self._spec.name, self._status.worker)

    async def _create_queue(self, stop: asyncio.Event) -> None:
        attempt = 0
        while not stop.is_set():
            try:
                await self._broker.create_queue(self._spec.name)
            except BrokerUnavailableError as error:
                attempt += 1
                await self._pause(attempt, error)
            else:
                return

    # --- pulling ---

    async def _pull(self) -> None:
        attempt = 0
        while True:
            size = self._room()
            if size == 0:
                self._changed.clear()
                if self._room() == 0:
                    await self._changed.wait()
                continue
            try:
                await self._pull_once(size)
                attempt = 0
            except BrokerUnavailableError as error:
                attempt += 1
                await self._pause(attempt, error)

    def _room(self) -> int:
        if not self._keeper.ready or self._settler.behind:
            return 0
        size = pull_size(self._hand.in_runner, self._keeper.helping, last_was_full=self._last_was_full)
        return min(size, self._hand.room)

    async def _pull_once(self, size: int) -> None:
        grant = await self._admission.acquire(size)
        came = 0
        try:
            # Busy: only what is there already; a message that comes later belongs to whoever is idle then.
            wait = self._options.receive_wait if self._hand.in_runner == 0 else 0.0
            deliveries = await self._broker.receive(self._spec.name, max_messages=grant.size, max_wait=wait)
            came = len(deliveries)
        finally:
            grant.shrink_to(came)
        self._last_was_full = was_nearly_full(size, came)
        if deliveries:
            await self._give_to_runner(self._hand.take(deliveries, grant))

    async def _give_to_runner(self, held: Sequence[Held]) -> None:
        """Those whose bodies are here at once, together; the others each as its claim check is fetched."""
        now = time.time()
        verdicts = [(one, self._past_saving(one, now)) for one in held]
        self._refuse([outcome for _, outcome in verdicts if outcome is not None])
        good = [one for one, outcome in verdicts if outcome is None]
        company = [one for one in good if not must_be_alone(one.delivery.delivery_count)]
        elsewhere = [one for one in company if one.delivery.message.data_ref is not None]
        try:
            await self._keeper.send([one for one in company if one.delivery.message.data_ref is None])
            fetches = asyncio.Semaphore(_FETCHES_AT_ONCE)
            async with asyncio.TaskGroup() as group:
                for one in elsewhere:
                    group.create_task(self._fetch_and_send(one, fetches))
            for one in good:
                if one.waiting:
                    await self._run_alone(one)
        except asyncio.CancelledError:
            # Told to stop before all of them got to the runner: the rest goes back at once.
            self._hand_back([one for one in good if one.waiting])
            raise

    async def _fetch_and_send(self, held: Held, fetches: asyncio.Semaphore) -> None:
        async with fetches:
            await self._until(lambda: self._hand.nbytes_in_runner < self._options.max_nbytes_in_hand)
            outcome = None if held.delivery.message.data_ref is None else await self._check_out(held)
            if outcome is None:
                await self._keeper.send([held])
            else:
                self._refuse([outcome])

    async def _run_alone(self, held: Held) -> None:
        """Nothing else is decoded or run meanwhile: should the runner die, it is clear who has done it."""
        await self._until(lambda: self._hand.in_runner == 0)
        await self._fetch_and_send(held, asyncio.Semaphore(1))
        await self._until(lambda: self._hand.in_runner == 0)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _refuse(self, outcomes: Sequence[Outcome]) -> None:
        for one in outcomes:
            self._hand.pass_by_runner(one.held)
        self._settler.settle(outcomes)

    def _hand_back(self, held: Sequence[Held]) -> None:
        for one in held:
            self._hand.pass_by_runner(one)
        self._settler.hand_back(held)

    def _past_saving(self, held: Held, now: float) -> Outcome | None:
        message, count = held.delivery.message, held.delivery.delivery_count
        if message.deadline is not None and now > message.deadline:
            late = now - message.deadline
            said = Failure(code="deadline-exceeded", message=f"received {late:.3f} s after its deadline")
            return self._failed(held, Fault.EXPIRED, said)
        if count > most_deliveries(self._spec.max_deliveries):
            said = Failure(
                code="delivery-limit",
                message=f"delivered {count} times without a verdict: whoever held it died, or lost its lock",
                attempts=count,
            )
            return self._failed(held, Fault.PERMANENT, said)
        return None

    async def _check_out(self, held: Held) -> Outcome | None:
        try:
            held.body = (await check_out(self._store, held.delivery.message)).body
        except BadInputError as error:
            said = Failure(code="bad-input", message=str(error))
            return self._failed(held, Fault.PERMANENT, said)
        except BlobError as error:
            said = Failure(code="claim-unreadable", message=str(error), attempts=held.delivery.delivery_count)
            return self._failed(held, Fault.TRANSIENT, said)
        return None

    def _failed(self, held: Held, fault: Fault, said: Failure) -> Outcome:
        return failure(held, fault, said, max_deliveries=self._spec.max_deliveries, timings=Timings())

    async def _pause(self, attempt: int, error: BrokerUnavailableError) -> None:
        delay = back_off(attempt, luck=0.5, longest=5.0)
        if attempt in {1, 10, 100}:
            _log.warning("the broker is unavailable, trying again: %s", error)
        await asyncio.sleep(delay)

    # --- locks and status ---

    async def _renew_locks(self) -> None:
        usual, soon = self._broker.lock_duration / 3, self._broker.lock_duration / 12
        pause = usual
        while True:
            await asyncio.sleep(pause)
            held, pause = self._hand.renewable(), usual
            if not held:
                continue
            try:
                lost, slots = self._hand.note_lost(await renew(held, self._broker))
            except BrokerUnavailableError as error:
                _log.warning("%d lock(s) could not be renewed, trying again soon: %s", len(held), error)
                pause = soon
                continue
            if lost:
                _log.warning("%d lock(s) lost; other workers have these messages by now", len(lost))
                await self._keeper.forget(slots)

    def _note_state(self, state: str, reason: str, signature: dict[str, Any]) -> None:
        self._status = WorkerStatus(
            worker=self._status.worker,
            model=self._spec.name,
            state=state,  # type: ignore[arg-type]
            reason=reason,
            signature=signature or self._status.signature,
        )
        self._announce_now.set()
        if self._on_status is not None:
            self._on_status(self._status)

    async def _announce(self) -> None:
        with contextlib.suppress(BlobError):  # housekeeping: the next worker to start tries again
            await presence.forget_the_dead(self._store, self._spec.name)
        while True:
            self._announce_now.clear()
            try:
                await presence.announce(self._store, self._status)
            except BlobError as error:
                _log.warning("this worker cannot announce itself: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._announce_now.wait(), presence.ANNOUNCE_EVERY)


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel *tasks* and wait until they have ended; a fault of theirs is logged, for nobody else will see it."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    for outcome in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(outcome, Exception):
            _log.error("a part of the worker failed while it was stopped", exc_info=outcome)
