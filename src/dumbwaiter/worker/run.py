"""Serve one model until told to stop."""

from __future__ import annotations

import asyncio
import logging

from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.config import OutboundSettings, WorkerSettings
from dumbwaiter.devices.admission import Admission
from dumbwaiter.models.contract import ModelSpec
from dumbwaiter.signals import told_to_retire, told_to_stop
from dumbwaiter.tasks import end
from dumbwaiter.worker.announcing import OnStatus
from dumbwaiter.worker.consumer import OUTBOUND, Consumer
from dumbwaiter.worker.spot_notices import AFTERWARDS, heed_notice

_log = logging.getLogger(__name__)


async def run_worker(
    broker: Broker,
    store: BlobStore,
    spec: ModelSpec,
    options: WorkerSettings,
    *,
    outbound: OutboundSettings = OUTBOUND,
    admission: Admission | None = None,
    on_status: OnStatus | None = None,
    stop: asyncio.Event | None = None,
    hurry: asyncio.Event | None = None,
    retire: asyncio.Event | None = None,
    start_seconds: float = 0.0,
) -> int:
    """Serve *spec* on an open broker and store until *stop* is set; the process's exit code.

    It leaves within options.grace, at once when *hurry* is set. With *retire* set it takes nothing more and leaves when
    what runs has ended, however long that takes. Without *stop*, SIGTERM and SIGINT stop it, a second one makes it
    hurry, and SIGUSR1 retires it. Where options.spot says whose notice to heed, it leaves in time before its machine is
    taken, and stays idle until then. *start_seconds*: how long its process had run by now. *outbound* says which URLs
    inputs may be fetched from; *admission* grants what may be pulled (None: anything).
    """
    consumer = Consumer(
        *(broker, store, spec, options),
        outbound=outbound,
        admission=admission,
        on_status=on_status,
        start_seconds=start_seconds,
    )
    # Whoever stops it by an event shares its process, and that process's signals are its own.
    told = retire if retire is not None or stop is None else asyncio.Event()
    with told_to_stop(stop, hurry) as (asked, hurried), told_to_retire(told) as retired:
        watching = _watch(options, consumer) if options.spot != "off" else None
        try:
            await consumer.run(asked, hurry=hurried, retire=retired)
            if watching is not None and watching.done() and watching.exception() is None:
                await _wait_for_the_end(watching.result(), asked, retired)
        finally:
            await end([watching])
    return 0


def _watch(options: WorkerSettings, consumer: Consumer) -> asyncio.Task[float]:
    """For a notice. A fault of ours in there ends the watch, and not the worker: it is logged when it comes."""
    watching = asyncio.create_task(heed_notice(options, consumer.leave_by))
    watching.add_done_callback(_tell_fault)
    return watching


def _tell_fault(watching: asyncio.Task[float]) -> None:
    if not watching.cancelled() and (fault := watching.exception()) is not None:
        _log.error("no notice of this machine's end is heeded any more, for to watch has failed", exc_info=fault)


async def _wait_for_the_end(left: float, *told: asyncio.Event) -> None:
    """Of the machine, which was *left* seconds away: whoever would start this worker anew would do it there."""
    _log.info("this worker has left the queue, and waits for the end of its machine")
    waiting = [asyncio.create_task(event.wait()) for event in told]
    await asyncio.wait(waiting, timeout=left + AFTERWARDS, return_when=asyncio.FIRST_COMPLETED)
    await end(waiting)
