"""The runner: one process, one model, one device. It does nothing but decode, run, encode.

Started by runner_process.py as ``python -m dumbwaiter.worker.runner PIPE RECORDER STACKS PARENT [SEAT]`` (inherited
descriptors and the consumer's process id; SEAT is its seat in the ledger of a device that it shares). The model runs in
the main thread; inputs are decoded beside it.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from dumbwaiter.devices.admission import What
from dumbwaiter.errors import DumbwaiterError
from dumbwaiter.models.contract import LoadedModel, ModelSpec
from dumbwaiter.policies.batching import LONG_HOLD, Decision, LatencyCurve, decide_batch, may_hold_answers, target_size
from dumbwaiter.policies.footprints import Observation
from dumbwaiter.policies.retrying import Fault as FaultKind
from dumbwaiter.worker.attempt import Attempt
from dumbwaiter.worker.autopsy import EXIT_STICKY
from dumbwaiter.worker.device_memory import ContextDeadError, DeviceMemory, OutOfRoomError
from dumbwaiter.worker.execution import NotRun, Predicts, describe_fault, run_batch
from dumbwaiter.worker.intake import Decoded, Intake
from dumbwaiter.worker.interrupting import Canceled, Interrupter
from dumbwaiter.worker.measuring import Measurement, OpenedDevice
from dumbwaiter.worker.pipe import (
    Done,
    Fault,
    Found,
    Item,
    Load,
    LoadFailed,
    Moved,
    Progress,
    Ready,
    Result,
    Returned,
    RunnerEnd,
)
from dumbwaiter.worker.recorder import FlightRecorder, State
from dumbwaiter.worker.reporting import HeardStream, Reporter, hear_prints

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_EXPIRED = Fault(FaultKind.EXPIRED, "deadline-exceeded", "its deadline would pass before its answer is ready")


class Runner:
    """Takes decoded inputs from the intake, forms the batch at the last moment, sends the outcomes.

    *measured* is what the model takes of the device that it shares; None when it shares none.
    """

    def __init__(
        self,
        pipe: RunnerEnd,
        model: LoadedModel,
        spec: ModelSpec,
        recorder: FlightRecorder,
        measured: Measurement | None = None,
    ) -> None:
        self._pipe = pipe
        self._model = model
        self._latency_target = spec.latency_target
        self._recorder = recorder
        self._curve = LatencyCurve()
        self._memory: DeviceMemory | None = None
        if measured is not None:
            self._memory = measured.memory
            for size, seconds in measured.timed:
                self._curve.observe(size, seconds)
        self._observations: list[Observation] = []
        self._lacked_room = False
        self._not_run: list[int] = []
        self._sending = threading.Lock()
        self._results: list[Result] = []
        self._bodies: list[bytes] = []
        self._oldest_result_at = 0.0
        self._holding = threading.Event()
        self._idle_since = time.monotonic()
        self._interrupter = Interrupter()
        self._reporter = Reporter(self._send_progress, self._interrupter)
        self._intake = Intake(
            pipe,
            model,
            recorder,
            threads=max(1, spec.decode_threads),
            on_bad_input=self._answer_bad_input,
            on_returned=self._hand_back,
            interrupter=self._interrupter,
        )

    def run(self) -> None:
        """Serve until the consumer closes the pipe.

        Raises ContextDeadError, what the intake failed with, and what the model raised when it was to be woken.
        """
        self._interrupter.install()
        HeardStream.ear = self._reporter.hear
        os.register_at_fork(after_in_child=self._reporter.forget)
        self._intake.start()
        threading.Thread(target=self._flush_late, name="late", daemon=True).start()
        try:
            self._serve()
        except Exception:
            # Those that did not run have no part in it, and shall not be blamed for this process's end.
            self._flush()
            self._intake.drain()
            raise
        if self._intake.fault is not None:
            raise self._intake.fault

    def _serve(self) -> None:
        while True:
            batch, expired = self._next_batch()
            for one in expired:
                self._add(one.item, _EXPIRED, started=time.monotonic())
            if batch:
                if self._memory is None or self._has_woken(self._memory, batch):
                    self._execute(batch)
            elif self._intake.orders:
                self._move(self._intake.orders.popleft())
            elif not expired:
                break

    def _next_batch(self) -> tuple[list[Decoded], list[Decoded]]:
        """Wait for a batch to run (or inputs to drop); both empty when there are orders, or the pipe has ended."""
        intake = self._intake
        with intake.changed:
            while not intake.ended and not intake.orders:
                intake.target = self._target if intake.most is None else max(1, min(intake.most, self._target))
                decision = self._decide()
                if decision.run or decision.drop:
                    places = sorted([*decision.run, *decision.drop])
                    taken = dict(zip(places, intake.take(places), strict=True))
                    return [taken[place] for place in decision.run], [taken[place] for place in decision.drop]
                if self._results:
                    self._flush()  # which may find out that nobody listens any more
                else:
                    intake.changed.wait(decision.wait)
        return [], []

    def _decide(self) -> Decision:
        intake = self._intake
        # Deadlines are wall-clock moments; the idle time is monotonic. The curve needs neither.
        now = time.time()
        return decide_batch(
            [one.waiting for one in intake.ready],
            now,
            curve=self._curve,
            target=intake.target,
            idle_since=now - (time.monotonic() - self._idle_since),
            decoding=intake.decoding,
            decode_gap=intake.decode_gap,
            arrival_gap=intake.arrival_gap,
        )

    @property
    def _target(self) -> int:
        return target_size(self._curve, self._model.max_batch, self._latency_target)

    def _execute(self, batch: list[Decoded]) -> None:
        started, calls = time.monotonic(), 0
        model: Predicts = self._model
        attempt: Attempt | None = None
        if any(one.item.reports for one in batch):
            model = attempt = Attempt(self._model, [one.item for one in batch], self._interrupter, self._reporter)

        def starting(places: range) -> None:
            nonlocal calls
            calls += 1
            now = time.monotonic()
            for place, one in enumerate(batch):
                self._recorder.mark(one.item.slot, State.RUNNING if place in places else State.IDLE, now)
            if attempt is not None:
                attempt.starting(places)

        outputs = run_batch(model, [one.value for one in batch], starting, memory=self._memory)
        ended = time.monotonic()
        # A batch that had to be run again, or was interrupted, says nothing of the usual time.
        if calls == 1 and not any(isinstance(output, Canceled) for output in outputs):
            self._curve.observe(len(batch), ended - started)
        for one, output in zip(batch, outputs, strict=True):
            self._answer(one.item, output, started, ended - started, len(batch))
        self._idle_since = time.monotonic()
        if self._memory is not None:
            self._note(*self._memory.take_news())
        if self._model.max_batch > 1 or not self._may_hold_answers():
            self._flush()
        elif not self._holding.is_set():
            self._holding.set()

    def _note(self, observations: list[Observation], lacked_room: bool) -> None:
        """Tell the consumer what batches took. Where there was too little room: at once, and before it has back what
        was not run for that, so that it asks for more the next time.
        """
        with self._sending:
            self._observations += observations
            self._lacked_room |= lacked_room
        if lacked_room:
            self._flush()
        not_run, self._not_run = self._not_run, []
        self._hand_back(not_run)

    def _has_woken(self, memory: DeviceMemory, batch: list[Decoded]) -> bool:
        """Whether the model's weights are on the device; if not, *batch* goes back."""
        try:
            memory.wake()
        except Exception as error:
            self._not_run = [one.item.slot for one in batch]
            self._note([], lacked_room=isinstance(error, OutOfRoomError))
            if not isinstance(error, OutOfRoomError):
                raise
            _log.warning("%s", error)
            return False
        return True

    def _move(self, what: What) -> None:
        self._flush()
        moved = Moved(reserved=0, seconds=0.0, is_done=False)
        if self._memory is not None:
            moved = self._memory.move(what)
        self._idle_since = time.monotonic()
        with self._sending:
            try:
                self._pipe.send(moved)
            except OSError as error:
                self._intake.end(error)

    def _may_hold_answers(self) -> bool:
        held_for = self._idle_since - self._oldest_result_at
        return may_hold_answers(held_for, ready=len(self._intake.ready), seconds_each=self._curve.predict(1))

    def _answer(self, item: Item, output: object, started: float, device: float, size: int) -> None:
        if not isinstance(output, BaseException):
            try:
                content_type, body = self._model.encode(output)
            except Exception as error:
                output = error
            else:
                self._recorder.mark(item.slot, State.IDLE, 0.0)
                waited = started - item.received_at
                self._keep(Result(item.slot, content_type, len(body), waited, device, size), body)
                return
        if isinstance(output, NotRun):
            self._not_run.append(item.slot)
            return
        if self._memory is not None:
            self._memory.check(output)
        self._recorder.mark(item.slot, State.IDLE, 0.0)
        self._add(item, describe_fault(output), started=started, device=device, size=size)

    def _add(self, item: Item, fault: Fault, *, started: float, device: float = 0.0, size: int = 1) -> None:
        self._keep(Result(item.slot, "", 0, started - item.received_at, device, size, fault), b"")

    def _keep(self, result: Result, body: bytes) -> None:
        with self._sending:
            if not self._results:
                self._oldest_result_at = time.monotonic()
            self._results.append(result)
            self._bodies.append(body)

    def _answer_bad_input(self, item: Item, error: BaseException) -> None:
        self._add(item, describe_fault(error), started=time.monotonic())
        self._flush()

    def _flush(self) -> None:
        with self._sending:
            if not self._results and not self._lacked_room:
                return
            results, bodies = self._results, self._bodies
            observations, lacked_room = self._observations, self._lacked_room
            self._results, self._bodies, self._observations, self._lacked_room = [], [], [], False
            target = self._target
            seconds_each = self._curve.predict(target) / target
            try:
                decode = self._intake.decode_seconds
                self._pipe.send(Done(results, target, seconds_each, observations, lacked_room, decode), bodies)
            except OSError as error:
                self._intake.end(error)

    def _flush_late(self) -> None:
        """In a thread of its own: what is held for the next answer leaves without it, where that one takes longer than
        its model usually does.
        """
        while self._holding.wait():
            time.sleep(LONG_HOLD)
            with self._sending:
                is_late = bool(self._results) and time.monotonic() - self._oldest_result_at >= LONG_HOLD
                if not self._results:
                    self._holding.clear()
            if is_late:
                self._flush()

    def _send_progress(self, progress: Progress, bodies: Sequence[bytes]) -> None:
        with self._sending:
            self._pipe.send(progress, bodies)

    def _hand_back(self, slots: list[int]) -> None:
        if not slots:
            return
        with self._sending, contextlib.suppress(OSError):
            self._pipe.send(Returned(slots))


def load(pipe: RunnerEnd, order: Load) -> tuple[LoadedModel, Measurement | None]:
    """Construct the model, measure what it takes of a device that it shares, and report.

    Raises SystemExit(1) after reporting a failure, and ContextDeadError.
    """
    from dumbwaiter.models.loading import load_model  # noqa: PLC0415 - the parent's death must be watched before

    started = time.monotonic()
    measured: Measurement | None = None
    try:
        device = None if order.device is None else OpenedDevice(order.device, probes=order.probes)
        model = load_model(order.spec, on_found=lambda: pipe.send(Found()))
        signature = dict(model.describe())
        if device is not None:
            measured = device.measure(model)
    except DumbwaiterError as error:
        pipe.send(LoadFailed(str(error), "".join(traceback.format_exception(error))))
        raise SystemExit(1) from None
    footprint = None if measured is None else measured.footprint
    pipe.send(Ready(model.max_batch, signature, time.monotonic() - started, footprint))
    return model, measured


def prepare_process(stacks_fd: int, parent: int) -> None:
    """Die with the consumer, be the one that the kernel kills when memory ends, leave evidence behind."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)  # it died before we asked to be told
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the consumer's business
    faulthandler.enable(file=stacks_fd)
    faulthandler.register(signal.SIGUSR1, file=stacks_fd)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    hear_prints()
    sys.setswitchinterval(0.001)  # the reader thread must get a word in beside a busy model


def main(argv: Sequence[str]) -> None:
    """Entry point of the child process."""
    pipe_fd, recorder_fd, stacks_fd, parent, *seat = (int(argument) for argument in argv)
    prepare_process(stacks_fd, parent)
    if seat:
        from dumbwaiter.devices.ledger import adopt  # noqa: PLC0415 - few runners have one

        adopt(seat[0])
    pipe = RunnerEnd(socket.socket(fileno=pipe_fd))
    os.register_at_fork(after_in_child=pipe.close)  # a model's child must not speak in its parent's name
    meta, _ = pipe.receive()
    if not isinstance(meta, Load):
        raise TypeError(f"the first frame must be Load, not {meta!r}")
    model, measured = load(pipe, meta)
    Runner(pipe, model, meta.spec, FlightRecorder(recorder_fd), measured).run()


if __name__ == "__main__":
    code = 0
    try:
        main(sys.argv[1:])
    except EOFError:
        pass
    except Exception as error:
        traceback.print_exc()
        code = EXIT_STICKY if isinstance(error, ContextDeadError) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # decode threads may be stuck in a hostile input; nothing is left that needs them
