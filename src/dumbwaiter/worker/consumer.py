"""The consumer: pulls what the runner can take, keeps the locks, and leaves in good order.

It never imports the model: whatever the model does to its process, the consumer lives to hand the messages back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from dumbwaiter.blobs.presence import WorkerStatus
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.config import OutboundSettings, WorkerSettings
from dumbwaiter.devices.admission import Admission, Grant, Unlimited
from dumbwaiter.errors import BrokerClosedError, BrokerError, BrokerUnavailableError, QueueNotFoundError
from dumbwaiter.holding import Outage, can_postpone, keep_locks
from dumbwaiter.message import Delivery
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.policies.batching import pull_size, was_nearly_full
from dumbwaiter.policies.leaving import SHARE_FOR_ALL, SHARE_FOR_BATCH
from dumbwaiter.policies.retrying import Retry
from dumbwaiter.tasks import every, unless
from dumbwaiter.worker.announcing import Announcer, OnStatus
from dumbwaiter.worker.fetching import Fetching
from dumbwaiter.worker.hand import NOWHERE, Hand, Held
from dumbwaiter.worker.inputs import InputFetcher, Places
from dumbwaiter.worker.keeper import RunnerKeeper
from dumbwaiter.worker.looking import ResultFinder
from dumbwaiter.worker.notifying import Notifier
from dumbwaiter.worker.preparing import Preparer
from dumbwaiter.worker.progress import ProgressWriter
from dumbwaiter.worker.settling import Outcome, Settler
from dumbwaiter.worker.workload import Workload

_CLAIMS_AT_ONCE = 4
_LOOK_EVERY = 1.0
OUTBOUND = OutboundSettings()
"""By default inputs may be fetched from any public host."""
_log = logging.getLogger(__name__)


class Consumer:
    """One model's worker on an open broker and store. run() serves until *stop* is set.

    *start_seconds*: how long its process had run by now, for whoever wants to know how long a worker takes to start.
    """

    _drained_by = _gone_by = math.inf  # until leave_by()

    def __init__(
        self,
        broker: Broker,
        store: BlobStore,
        spec: ModelSpec,
        options: WorkerSettings,
        *,
        outbound: OutboundSettings = OUTBOUND,
        admission: Admission | None = None,
        on_status: OnStatus | None = None,
        start_seconds: float = 0.0,
    ) -> None:
        self._broker = broker
        self._spec = spec
        self._options = options
        self._admission = admission or Unlimited()
        self._hand = Hand()
        self._changed, self._found, self._noticed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._has_queue = self._last_was_full = False
        self._untold: tuple[str, str, dict[str, Any]] | None = None
        notifier = Notifier(broker, spec.name)
        self._settler = Settler(
            broker, store, self._hand, notifier, claim_threshold=options.claim_threshold, changed=self._changed
        )
        self._progress = ProgressWriter(store, notifier)
        self._workload = Workload(spec.name, start_seconds=start_seconds)
        self._announcer = Announcer(store, spec.name, self._workload, on_status=on_status, measured=self._measured)
        self._keeper = RunnerKeeper(
            *(spec, self._hand, self._settler, options, self._progress, self._admission, self._workload),
            changed=self._changed,
            on_found=self._found.set,
            on_state=self._note_state,
            on_measured=self._announcer.note_measured,
        )
        self._admission.attach(self._keeper.mover, self._has_work)
        self._finder = ResultFinder(store)
        self._fetcher = InputFetcher(outbound)
        self._preparer = Preparer(store, spec, self._finder, self._fetcher)
        self._fetching = Fetching(self._fetch_and_send, put_off=self._put_off if can_postpone(broker) else None)
        self._door = asyncio.Lock()

    def _measured(self, status: WorkerStatus) -> WorkerStatus:
        return msgspec.structs.replace(
            status,
            seconds_each=self._keeper.seconds_each,
            settled=self._settler.settled_count,
            work_seconds=self._workload.work_seconds,
            in_hand=len(self._hand),
            load_seconds=self._workload.load_seconds,
        )

    async def run(
        self, stop: asyncio.Event, *, hurry: asyncio.Event | None = None, retire: asyncio.Event | None = None
    ) -> None:
        """Serve until *stop*; then finish or hand back what is in hand, within the grace (*hurry*: at once).

        Until *retire* likewise, but for what runs, which may take as long as it does unless *stop* comes too. After
        leave_by() it may take what is left by then.
        """
        keeping = asyncio.create_task(self._keeper.run())
        chores = [
            asyncio.create_task(self._pull()),
            asyncio.create_task(keep_locks(self._broker, self._hand, on_lost=self._forget)),
            asyncio.create_task(self._announcer.run()),
            asyncio.create_task(every(_LOOK_EVERY, self._take_out_answered)),
            asyncio.create_task(self._admission.run()),
        ]
        told = [asyncio.create_task(event.wait()) for event in (stop, retire, self._noticed) if event]
        try:
            await asyncio.wait({keeping, *chores, *told}, return_when=asyncio.FIRST_COMPLETED)
            faulty = [task for task in (keeping, *chores) if task.done()]
            if not faulty and not stop.is_set():
                await self._retire(stop, hurry, chores[0])
            await self._leave(keeping, chores, hurry)
            for task in faulty:
                task.result()  # a fault of ours: raise it rather than serve on half dead
        finally:
            # Also when this call was cancelled, while it left or before: nothing of ours may live on.
            await _end(*told, *chores, keeping)
            await self._fetching.close()
            await self._settler.close()
            await self._progress.close()
            await self._fetcher.close()

    async def _leave(
        self, keeping: asyncio.Task[None], chores: Sequence[asyncio.Task[None]], hurry: asyncio.Event | None
    ) -> None:
        """Stop pulling; drain the runner; end it; settle; say goodbye. Locks are renewed until the end."""
        pulling, renewing, announcing, looking, admitting = chores
        await self._pull_no_more(pulling)
        started, grace = time.monotonic(), self._options.grace
        within = min(grace * SHARE_FOR_BATCH, self._drained_by - started)
        draining = asyncio.create_task(self._keeper.drain(within))
        hurrying = asyncio.create_task((hurry or asyncio.Event()).wait())
        await asyncio.wait({draining, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        await _end(draining, hurrying, keeping)
        left = max(0.5, min(started + grace * SHARE_FOR_ALL, self._gone_by) - time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._settler.settled()
        await _end(renewing, announcing, looking, admitting)
        await self._announcer.withdraw()

    async def _retire(self, stop: asyncio.Event, hurry: asyncio.Event | None, pulling: asyncio.Task[None]) -> None:
        """Take nothing more, and let what runs end: nobody waits for this worker to be gone."""
        await self._pull_no_more(pulling)
        hasty = hurry or asyncio.Event()
        if not self._noticed.is_set():
            await unless(stop, unless(hasty, unless(self._noticed, self._keeper.drain(math.inf))))
        if self._noticed.is_set() and not (stop.is_set() or hasty.is_set()):
            await unless(stop, unless(hasty, self._keeper.drain(self._drained_by - time.monotonic())))

    def leave_by(self, seconds: float) -> None:
        """The machine is gone in so many *seconds*: take nothing more, finish what can end by then, and leave."""
        now = time.monotonic()
        self._drained_by, self._gone_by = now + SHARE_FOR_BATCH * seconds, now + SHARE_FOR_ALL * seconds
        self._noticed.set()

    async def _pull_no_more(self, pulling: asyncio.Task[None]) -> None:
        if pulling.done():
            return
        await _end(pulling)
        self._hand_back([one for one in await self._fetching.close() if one.waiting])
        self._note_state("draining", "", {})

    def _note_state(self, state: str, reason: str, signature: dict[str, Any]) -> None:
        if signature:
            self._fetcher.places = Places.of(signature.get("input") or {})
        # Whoever hears that the model is ready may ask it at once.
        self._untold = (state, reason, signature) if state == "ready" and not self._has_queue else None
        if self._untold is None:
            self._announcer.note_state(state, reason, signature)

    async def _create_queue(self) -> None:
        """Once the model's class was found: of a mistyped name no queue may be left, which would look like a model."""
        await self._found.wait()
        outage = Outage()
        while True:
            try:
                await self._broker.create_queue(self._spec.name)
            except BrokerUnavailableError as error:
                await outage.pause(error)
            else:
                break
        self._has_queue = True
        if self._untold is not None:
            self._note_state(*self._untold)

    # --- pulling ---

    async def _pull(self) -> None:
        await self._create_queue()
        outage = Outage()
        while True:
            size = self._room()
            if size == 0:
                self._changed.clear()
                if self._room() == 0:
                    await self._changed.wait()
                continue
            try:
                await self._pull_once(size)
                outage.over()
            except QueueNotFoundError as error:  # deleted by somebody, or its server came back with an empty disk
                await outage.pause(error)
                await self._create_queue()
            except BrokerClosedError:
                raise
            except BrokerError as error:
                if isinstance(error, BrokerUnavailableError):
                    self._settler.note_outage()
                await outage.pause(error)

    def _room(self) -> int:
        if not self._keeper.ready or self._settler.behind or self._fetching.is_crowded:
            return 0
        size = pull_size(self._hand.in_runner, self._keeper.helping, last_was_full=self._last_was_full)
        return min(size, self._hand.room)

    async def _pull_once(self, size: int) -> None:
        # Busy: only what is there already; a message that comes later belongs to whoever is idle then. And whoever
        # keeps others from the device does not wait on it.
        polls = self._hand.in_runner == 0 and not (self._admission.is_shared and self._last_was_full)
        grant = await self._admission.acquire(size, polls=polls)
        came = 0
        try:
            deliveries = await self._receive(grant, self._options.receive_wait if polls and grant.may_wait else 0.0)
            came = len(deliveries)
        finally:
            grant.shrink_to(came)
        self._last_was_full = was_nearly_full(grant.size, came)
        if deliveries:
            await self._give_to_runner(self._hand.take(deliveries, grant))

    async def _receive(self, grant: Grant, max_wait: float) -> list[Delivery]:
        """What is in the queue, or comes within *max_wait* seconds unless the grant is revoked."""
        receiving = self._broker.receive(self._spec.name, max_messages=grant.size, max_wait=max_wait)
        if not self._admission.is_shared or max_wait == 0.0:
            return await receiving
        return await unless(grant.is_revoked, receiving) or []

    async def _has_work(self) -> bool:
        ready = (await self._broker.stats(self._spec.name)).ready
        return ready is None or ready > 0  # where nobody can tell, a look has to

    async def _give_to_runner(self, held: Sequence[Held]) -> None:
        """Those that are ready at once, together; the others as they are looked at, and each as it is fetched."""
        for one in held:
            if one.kept:
                self._fetcher.read_order(one)
        now = time.time()
        verdicts = [(one, self._preparer.past_saving(one, now)) for one in held]
        self._refuse([outcome for _, outcome in verdicts if outcome is not None])
        good = [one for one, outcome in verdicts if outcome is None]
        ready = [one for one in good if self._preparer.is_ready(one)]
        try:
            await self._send(ready)
            if len(ready) < len(good):
                await self._prepare([one for one in good if one.waiting])
        except asyncio.CancelledError:
            # Told to stop before all of them got to the runner: the rest goes back at once.
            self._hand_back([one for one in good if one.waiting and not one.fetching])
            raise

    async def _prepare(self, held: Sequence[Held]) -> None:
        here: list[Held] = []
        elsewhere: list[Held] = []
        for one in held:
            (here if self._preparer.is_all_here(one) else elsewhere).append(one)
        claims = asyncio.Semaphore(_CLAIMS_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_and_send(here))
            for one in elsewhere:
                group.create_task(self._complete_and_send(one, claims))

    async def _look_and_send(self, held: Sequence[Held]) -> None:
        self._refuse(await self._preparer.look(held))
        await self._send([one for one in held if one.waiting])

    async def _complete_and_send(self, held: Held, claims: asyncio.Semaphore) -> None:
        async with claims:
            await self._until_there_is_room()
            outcome = next(iter(await self._preparer.look([held])), None) or await self._preparer.check_out(held)
            if outcome is not None:
                self._refuse([outcome])
            elif (host := self._fetcher.host_of(held)) is None:
                await self._send([held])
            else:
                held.fetching = True
                held.let_go()  # that may take long, and the device has better things to do
                self._fetching.start(held, host)

    async def _fetch_and_send(self, held: Held) -> None:
        await self._until_there_is_room()
        outcome = await self._preparer.fetch(held)
        if outcome is not None:
            self._refuse([outcome])
        elif held.lost:
            self._hand_back([held])
        elif await self._admit(held) and not held.lost:
            await self._send([held])
        else:
            self._hand_back([held])

    async def _admit(self, held: Held) -> bool:
        """Whether there was room for it before long: else it is better off in the queue, where others can have it."""
        try:
            async with asyncio.timeout(self._broker.lock_duration):
                held.grant = await self._admission.acquire(1)
        except TimeoutError:
            return False
        held.grant.shrink_to(1)
        return True

    def _put_off(self, held: Held, delay: float) -> None:
        """Too many inputs are being fetched from where its own lies: it comes again in *delay* seconds, uncounted."""
        self._refuse([Outcome(held, None, Retry(delay=delay, counted=False))])

    async def _send(self, held: Sequence[Held]) -> None:
        """To the runner: those that must be alone one by one. Should it die, it is clear then who has done it."""
        async with self._door:
            company = [one for one in held if not one.alone]
            await self._keeper.send(company)
            for one in held:
                if one.waiting:
                    await self._until(lambda: self._hand.in_runner == 0)
                    await self._keeper.send([one])
                    await self._until(lambda: self._hand.in_runner == 0)

    async def _until_there_is_room(self) -> None:
        await self._until(lambda: self._hand.nbytes_in_runner < self._options.max_nbytes_in_hand)

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

    # --- what the runner has in hand ---

    async def _take_out_answered(self) -> None:
        """Look whether what the runner has had for a while was answered meanwhile: cancelled, or by another worker."""
        held = self._hand.kept_in_runner(since=time.monotonic() - _LOOK_EVERY)
        errors = await self._finder.find_all([one for one in held if one.stored is None])
        for error in errors:
            if error is not None:
                _log.warning("whether a running request was cancelled cannot be told: %s", error)
                break
        await self._keeper.cancel([one.slot for one in held if one.stored is not None and one.slot != NOWHERE])

    async def _forget(self, lost: Sequence[Held]) -> None:
        """Others have these messages by now, so what has not started here need not start."""
        await self._keeper.forget([one.slot for one in lost if one.slot != NOWHERE])


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel *tasks* and wait until they have ended; a fault of theirs is logged, for nobody else will see it."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    for outcome in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(outcome, Exception):
            _log.error("a part of the worker failed while it was stopped", exc_info=outcome)
