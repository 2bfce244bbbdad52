"""Keeps a runner alive: starts it, reads its outcomes, notices death and hangs, blames the right messages, restarts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from dumbwaiter.config import WorkerSettings
from dumbwaiter.devices.admission import Admission, Place
from dumbwaiter.message import Failure, Timings
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.policies.batching import HORIZON, SHARED_HORIZON, most_in_hand
from dumbwaiter.policies.retrying import Fault, before_next_load
from dumbwaiter.worker.autopsy import DEVICE_ERROR, CauseOfDeath
from dumbwaiter.worker.draining import let_run
from dumbwaiter.worker.hand import Hand, Held
from dumbwaiter.worker.moving import RunnerMover, find_place
from dumbwaiter.worker.pipe import (
    OUT_OF_MEMORY,
    Cancel,
    Done,
    Drain,
    Drop,
    Found,
    Item,
    LoadFailed,
    Moved,
    Predict,
    Progress,
    Ready,
    Returned,
    split,
)
from dumbwaiter.worker.progress import ProgressWriter
from dumbwaiter.worker.recorder import FlightRecorder, State
from dumbwaiter.worker.runner_process import RunnerProcess
from dumbwaiter.worker.settling import Outcome, Settler, failure, success
from dumbwaiter.worker.workload import Workload

_log = logging.getLogger(__name__)
#: Of its own, so that whoever shows the states of a worker in another way can silence it.
_loading_log = logging.getLogger("dumbwaiter.worker.loading")
_LOOK_EVERY, _LOOK_EVERY_IDLE = 0.25, 1.0
_LAST_WORDS = 0.5
#: After so many batches in a row that ran out of memory the runner's is taken to be in pieces.
_MOST_OUT_OF_MEMORY = 2
_HEALTHY_AFTER = 10.0
#: How long a batch that nobody wants any more may take to end by itself.
CANCEL_PATIENCE = 10.0
_NONSENSE = CauseOfDeath(
    code="runner-crashed",
    message="the runner was killed because what it said could not be understood: the model writes to file descriptors "
    "that are not its own, or forks and goes on in both processes",
)

_NO_MEMORY = CauseOfDeath(
    code=OUT_OF_MEMORY, message="the runner was ended: two batches in a row ran out of the device's memory"
)
_UNWANTED = CauseOfDeath(code="canceled", message="the runner was killed: nobody wanted what it was running")

OnState = Callable[[str, str, dict[str, Any]], None]


class RunnerKeeper:
    """One runner at a time. *changed* is set whenever there may be reason to pull again.

    *on_found* is called whenever a runner has imported the model's class, whether or not it can then be constructed.
    *on_measured* is called when *seconds_each*, the measured time of one input, is known for the first time.
    """

    def __init__(
        self,
        spec: ModelSpec,
        hand: Hand,
        settler: Settler,
        options: WorkerSettings,
        progress: ProgressWriter,
        admission: Admission,
        workload: Workload,
        *,
        changed: asyncio.Event,
        on_found: Callable[[], object],
        on_state: OnState,
        on_measured: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._progress = progress
        self._hand = hand
        self._settler = settler
        self._options = options
        self._admission = admission
        self._workload = workload
        self._on_found = on_found
        self._on_state = on_state
        self._on_measured = on_measured
        self._runner: RunnerProcess | None = None
        self._max_batch = 1
        self._failures = 0
        self._load_failure = ""
        self._stopping = False
        self._heard_at = 0.0
        self._deaf_since: float | None = None
        self._deaf_for = 0.0
        self._is_unwanted = False
        self._out_of_memory = 0
        self.mover = RunnerMover(timeout=max(spec.timeout, options.load_timeout))
        self.ready = False
        self.seconds_each = 0.0
        self.helping = 1
        self.changed = changed

    async def run(self) -> None:
        """Run one runner after the other until cancelled, with back-off when they do not live long."""
        while not self._stopping:
            if not self.mover.is_retired:  # else it is as good as ready: it comes back when there is work
                self._state("loading" if not self._load_failure else "failing", self._load_failure)
            found_at = 0.0
            try:
                place = await find_place(self._admission, self._state)
                found_at = time.monotonic()
                await self._live_and_die(place)
            finally:
                self._admission.move_out()
            if self._failures and not self._stopping:
                is_in_the_way = self._admission.is_shared and not self.seconds_each
                held = time.monotonic() - found_at if is_in_the_way else 0.0
                await asyncio.sleep(before_next_load(self._failures, luck=random.random(), held=held))  # noqa: S311

    async def send(self, held: Sequence[Held]) -> None:
        """Hand inputs to the runner; if it is dying just now, its death settles them."""
        runner = self._runner
        has_home = runner is not None and self.ready
        homeless = [one for one in held if not has_home or one.grant is None or one.grant.is_void]
        if homeless:
            for one in homeless:
                self._hand.pass_by_runner(one)
            self._settler.hand_back(homeless)
        here = [one for one in held if one.waiting]
        if runner is None or not here:
            return
        batches = [one.grant.batch for one in here if one.grant is not None]
        most = min((batch for batch in batches if batch is not None), default=None)
        bodies = [self._hand.assign(one) for one in here]
        with contextlib.suppress(OSError):
            await runner.pipe.send(Predict([_item(one) for one in here], most), bodies)

    async def forget(self, slots: Sequence[int]) -> None:
        """Tell the runner not to start what is in *slots*: the locks are lost. It returns what it had not started."""
        if self._runner is not None and slots:
            with contextlib.suppress(OSError):
                await self._runner.pipe.send(Drop(list(slots)))

    async def cancel(self, slots: Sequence[int]) -> None:
        """Tell the runner that nobody wants what is in *slots*, for it is answered. Repeat it while they stay."""
        if self._runner is not None and slots:
            with contextlib.suppress(OSError):
                await self._runner.pipe.send(Cancel(list(slots)))

    async def drain(self, grace: float) -> None:
        """Start nothing more; wait at most *grace* seconds for what is running, if it can end by then."""
        self._stopping = True
        if self._runner is not None and self.ready:
            with contextlib.suppress(OSError):
                await self._runner.pipe.send(Drain())
        await let_run(self._hand, self._recorder, self._workload.recent, self.changed, within=grace)

    def _recorder(self) -> FlightRecorder | None:
        return None if self._runner is None else self._runner.recorder

    async def _live_and_die(self, place: Place) -> None:
        self._is_unwanted, self._deaf_for, self._out_of_memory = False, 0.0, 0
        self._runner = runner = await RunnerProcess.start(self._spec, place)
        self.mover.serve(runner)
        watchdog = asyncio.create_task(self._watch(runner))
        try:
            await self._listen(runner)
            cause = await runner.died()
            self.ready = False
            if not self._is_unwanted and not self.mover.is_retired:
                self._blame(runner, cause)
        finally:
            self.ready = False
            watchdog.cancel()
            self.mover.lose()
            self._settler.hand_back(self._hand.empty_runner())
            self._runner = None
            await asyncio.shield(runner.close())
            self.changed.set()

    async def _listen(self, runner: RunnerProcess) -> None:
        """Read the runner's frames to the last one, also when a grandchild keeps the pipe open."""
        reading = asyncio.create_task(self._read(runner))
        dying = asyncio.create_task(runner.died())
        try:
            await asyncio.wait({reading, dying}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await asyncio.wait({reading}, timeout=_LAST_WORDS)
        finally:
            reading.cancel()
            dying.cancel()

    async def _read(self, runner: RunnerProcess) -> None:
        while True:
            try:
                meta, bodies = await runner.pipe.receive()
                if isinstance(meta, Progress):
                    await self._note_progress(meta, bodies)
                else:
                    self._heed(meta, bodies)
            except (EOFError, OSError):
                return
            except Exception as error:  # the model has written into the pipe, or has forked and speaks twice
                _log.error("the runner of model %s talks nonsense: killing it", self._spec.name, exc_info=error)
                runner.condemn(_NONSENSE)
                return
            self._heard_at = time.monotonic()

    async def _note_progress(self, meta: Progress, bodies: memoryview) -> None:
        pieces = split([report.nbytes for report in meta.reports], bodies)
        for report, piece in zip(meta.reports, pieces, strict=True):
            lane = self._progress.note(self._hand.at(report.slot), report, bytes(piece))
            if lane is not None and lane.is_full:
                # The runner waits with us, and not for the model's sake.
                self._deaf_since = time.monotonic()
                await lane.room()
                self._deaf_for += time.monotonic() - self._deaf_since
                self._deaf_since = None

    def _heed(self, meta: Found | Ready | LoadFailed | Done | Returned | Moved, bodies: memoryview) -> None:
        if isinstance(meta, Done):
            self._settle(meta, bodies)
        elif isinstance(meta, Returned):
            self._settler.hand_back(self._hand.leave_runner_together(meta.slots))
        elif isinstance(meta, Ready):
            self._become_ready(meta)
        elif isinstance(meta, Found):
            self._on_found()
        elif isinstance(meta, Moved):
            self.mover.heed(meta)
        else:
            self._fail_to_load(meta)
        self.changed.set()

    def _become_ready(self, meta: Ready) -> None:
        self._max_batch = self.helping = meta.max_batch
        self._load_failure = ""
        self._admission.settle_in(meta.footprint, meta.max_batch)
        self.ready = True
        if self._runner is not None:
            self._workload.note_loaded(time.monotonic() - self._runner.started_at)
        _log.info("model %s is ready after %.1f s", self._spec.name, meta.load_seconds)
        self._state("ready", "", meta.signature)

    def _fail_to_load(self, meta: LoadFailed) -> None:
        self._load_failure = meta.message
        self._failures += 1
        why, _, trace = meta.message.partition("\n")
        facts = {"traceback": trace} if trace else {}
        _loading_log.error("model %s cannot be loaded (try %d): %s", self._spec.name, self._failures, why, extra=facts)
        self._state("failing", meta.message)

    def _learn(self, meta: Done) -> None:
        self.helping = most_in_hand(
            *(meta.target, meta.seconds_each),
            max_batch=self._max_batch,
            decode_threads=self._spec.decode_threads,
            decode_seconds=meta.decode_seconds,
            horizon=SHARED_HORIZON if self._admission.is_shared else HORIZON,
        )
        is_first, self._deaf_for = not self.seconds_each and meta.seconds_each > 0.0, 0.0
        self.seconds_each = meta.seconds_each or self.seconds_each
        if is_first:
            self._on_measured()
        self._admission.observe(meta.observations, meta.target, self.seconds_each)
        self._note_memory(meta)

    def _settle(self, meta: Done, bodies: memoryview) -> None:
        self._learn(meta)
        outcomes: list[Outcome] = []
        now, wall = time.monotonic(), time.time()
        pieces = split([result.nbytes for result in meta.results], bodies)
        left = self._hand.leave_runner_together([result.slot for result in meta.results])
        self._workload.note_done(left, meta)
        for held, result, body in zip(left, meta.results, pieces, strict=True):
            sent_at = held.request.time
            timings = Timings(
                queued=max(0.0, wall - (now - held.received_at) - sent_at) if sent_at is not None else 0.0,
                batched=result.batched,
                device=result.device,
                batch_size=result.batch_size,
            )
            if result.fault is None:
                outcomes.append(success(held, bytes(body), result.content_type, timings))
            else:
                why = result.fault
                if why.code == OUT_OF_MEMORY and self._admission.may_grow:
                    self._settler.hand_back([held])
                    continue
                said = Failure(
                    code=why.code, message=why.message, detail=why.detail, attempts=held.delivery.delivery_count
                )
                # Alone, and with all that there is: another time changes little, and each second one costs the runner.
                had_all = why.code == OUT_OF_MEMORY and self._admission.is_shared
                outcomes.append(self._failed(held, Fault.UNKNOWN if had_all else why.kind, said, timings))
        self._settler.settle(outcomes)
        self._failures = 0

    def _failed(self, held: Held, fault: Fault, said: Failure, timings: Timings) -> Outcome:
        return failure(held, fault, said, max_deliveries=self._spec.max_deliveries, timings=timings)

    def _note_memory(self, meta: Done) -> None:
        self._out_of_memory = self._out_of_memory + 1 if meta.out_of_memory else 0
        if self._out_of_memory >= _MOST_OUT_OF_MEMORY and self._runner is not None:
            _log.warning("model %s ran out of memory twice in a row: starting its runner anew", self._spec.name)
            self._is_unwanted = True
            self._runner.condemn(_NO_MEMORY)

    def _blame(self, runner: RunnerProcess, cause: CauseOfDeath) -> None:
        """Those that were being decoded or run pay for it; when nobody was, all that were there may have done it."""
        slots = self._hand.slots
        suspects = runner.recorder.busy(slots) or slots
        if self._stopping:
            return
        is_news = bool(slots) or not self._load_failure
        if not slots and not self._load_failure:
            self._failures += 1
            if time.monotonic() - runner.started_at < _HEALTHY_AFTER:
                self._load_failure = cause.message
        if is_news:
            _log.error("%s (model %s); %d message(s) suspected", cause.message, self._spec.name, len(suspects))
        if cause.code == DEVICE_ERROR and len(suspects) > 1:
            # One of them did it. Each runs alone next time, and pays for itself.
            self._settler.hand_back([self._hand.suspect(slot) for slot in suspects])
            return
        outcomes = []
        for slot in suspects:
            held = self._hand.leave_runner(slot)
            said = Failure(
                code=cause.code, message=cause.message, detail=cause.detail, attempts=held.delivery.delivery_count
            )
            outcomes.append(self._failed(held, Fault.UNKNOWN, said, Timings()))
        self._settler.settle(outcomes)

    def _silent_for(self, runner: RunnerProcess, now: float) -> float:
        """How long the runner's longest step has been going on; or, with inputs and no step, how long it was silent."""
        if not self.ready:
            return now - runner.started_at
        slots = self._hand.slots
        took = max(0.0, runner.recorder.longest(slots, now) - self._deaf_for)
        return took or (now - max(self._heard_at, self._hand.given_at) if slots else 0.0)

    async def _watch(self, runner: RunnerProcess) -> None:
        """Kill the runner when a step takes longer than the model's timeout, or loading longer than load_timeout.

        And when it does not end what nobody wants any more.
        """
        every = min(_LOOK_EVERY, self._spec.timeout / 4)
        while runner.alive:
            await asyncio.sleep(every if self._hand.in_runner or not self.ready else _LOOK_EVERY_IDLE)
            if self._is_stuck_unwanted(runner, time.monotonic()):
                _log.warning("model %s does not end what was cancelled: killing its runner", self._spec.name)
                self._is_unwanted = True
                runner.condemn(_UNWANTED)
                return
            if self._deaf_since is not None:
                continue
            took = self._silent_for(runner, time.monotonic())
            if took > (self._spec.timeout if self.ready else self._options.load_timeout):
                _log.error("model %s hangs since %.1f s: killing its runner", self._spec.name, took)
                await runner.kill_hung(took)
                return

    def _is_stuck_unwanted(self, runner: RunnerProcess, now: float) -> bool:
        """Whether all that the model is running has been cancelled for so long that it should have ended."""
        running = [self._hand.at(slot) for slot in self._hand.slots if runner.recorder.read(slot)[0] is State.RUNNING]
        return bool(running) and all(
            one.stored is not None and now - one.stored_at > CANCEL_PATIENCE for one in running
        )

    def _state(self, state: str, reason: str = "", signature: dict[str, Any] | None = None) -> None:
        self._on_state(state, reason, signature or {})


def _item(held: Held) -> Item:
    message = held.request
    return Item(
        slot=held.slot,
        content_type=message.content_type,
        nbytes=held.nbytes,
        deadline=message.deadline,
        received_at=held.received_at,
        alone=held.alone,
        reports=held.kept,
    )
