"""The loop of a courier: pulls notifications, posts them side by side, and settles each by what its try came to.

At least once: a notification is completed only after a receiver has said that it has it. One that is posted twice has
the same ``webhook-id`` both times. Delays are the broker's; with one that keeps none (capabilities.abandon_delay, and
uncounted_abandon for those that wait for their turn), a message stays in hand until its time has come, and takes a
place of ``concurrency`` meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from dumbwaiter import holding
from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.brokers.contract import Broker
from dumbwaiter.config import CourierSettings
from dumbwaiter.courier import verdicts
from dumbwaiter.courier.posts import Composer, signed
from dumbwaiter.courier.verdicts import Verdict
from dumbwaiter.errors import (
    BrokerClosedError,
    BrokerError,
    BrokerUnavailableError,
    DumbwaiterError,
    LockLostError,
    OutboundError,
    QueueNotFoundError,
)
from dumbwaiter.holding import Outage, can_postpone, insist_on_broker, keep_locks
from dumbwaiter.message import WEBHOOKS_QUEUE, Delivery
from dumbwaiter.notification import Notification, read
from dumbwaiter.outbound import OutboundClient
from dumbwaiter.policies.delivering import MAX_TRIES, PROGRESS_TRIES, Again, Done, Stop, is_past_trying
from dumbwaiter.policies.sharing import SharedPlaces
from dumbwaiter.signing import SigningKey
from dumbwaiter.tasks import end

OnState = Callable[[str, str], None]
"""Called with a state (``ready``, ``draining``) and the reason for it."""

_RECEIVE_WAIT = 20.0
_HAND_BACK_WITHIN = 2.0
_log = logging.getLogger("dumbwaiter.courier")


class Held(holding.Held):
    """A notification in hand."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """For logs: which notification of which request."""
        message = self.delivery.message
        return f"{message.id} (of {message.correlation_id})"


class Courier:
    """Delivers on an open broker, store and client; run() until *stop* is set."""

    def __init__(
        self,
        broker: Broker,
        store: BlobStore,
        settings: CourierSettings,
        outbound: OutboundClient,
        signing: SigningKey,
        *,
        public_url: str | None = None,
        on_state: OnState | None = None,
    ) -> None:
        self._broker = broker
        self._settings = settings
        self._outbound = outbound
        self._signing = signing
        self._composer = Composer(store, signing, public_url=public_url)
        self._on_state = on_state
        self._places = SharedPlaces(settings.concurrency, per_host=settings.per_host)
        self._held: dict[asyncio.Task[None], Held] = {}
        self._room = asyncio.Event()

    async def run(self, stop: asyncio.Event, *, hurry: asyncio.Event | None = None) -> None:
        """Deliver until *stop*; then let what is under way end, within the grace (*hurry*: at once)."""
        stopping = asyncio.create_task(stop.wait())
        pulling = asyncio.create_task(self._pull())
        renewing = asyncio.create_task(keep_locks(self._broker, self._held.values()))
        try:
            await asyncio.wait({stopping, pulling, renewing}, return_when=asyncio.FIRST_COMPLETED)
            faulty = [task for task in (pulling, renewing) if task.done()]
            await end([pulling])
            self._tell("draining")
            await self._leave(hurry)
            for task in faulty:
                task.result()  # a fault of ours: raise it rather than deliver on half dead
        finally:
            await end([stopping, pulling, renewing, *self._held])

    async def _leave(self, hurry: asyncio.Event | None) -> None:
        hurried = asyncio.create_task((hurry or asyncio.Event()).wait())
        deadline = time.monotonic() + self._settings.grace
        while self._held and not hurried.done() and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait({hurried, *self._held}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        late = dict(self._held)
        await end([hurried, *late])
        unsettled = [held.delivery for held in late.values() if held.is_ours]
        # Whether these were received nobody knows; they come again with the same webhook-id, and at no charge.
        gone = (LockLostError, QueueNotFoundError)
        with contextlib.suppress(BrokerUnavailableError, BrokerClosedError, *gone, TimeoutError):
            async with asyncio.timeout(_HAND_BACK_WITHIN):
                await self._broker.abandon(unsettled, counted=False)

    # --- pulling ---

    async def _pull(self) -> None:
        outage, ready = Outage(), False
        while True:
            try:
                if not ready:
                    await self._broker.create_queue(WEBHOOKS_QUEUE)
                    ready = True
                    self._tell("ready")
                await self._pull_once()
                outage.over()
            except QueueNotFoundError as error:  # deleted by somebody, or its server came back with an empty disk
                ready = False
                await outage.pause(error)
            except BrokerClosedError:
                raise
            except BrokerError as error:
                await outage.pause(error)

    async def _pull_once(self) -> None:
        while (size := self._settings.concurrency - len(self._held)) <= 0:
            self._room.clear()
            await self._room.wait()
        for delivery in await self._broker.receive(WEBHOOKS_QUEUE, max_messages=size, max_wait=_RECEIVE_WAIT):
            held = Held(delivery)
            task = asyncio.create_task(self._deliver(held))
            self._held[task] = held
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        held = self._held.pop(task)
        self._room.set()
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, (BrokerUnavailableError, BrokerClosedError)):
            _log.warning("%s is not settled; it comes again when its lock runs out: %s", held.name, error)
        elif error is not None:  # a fault here must not end the others; the message is safe in the queue
            _log.error("delivering %s failed; it comes again when its lock runs out", held.name, exc_info=error)

    # --- one notification ---

    async def _deliver(self, held: Held) -> None:
        tries = held.delivery.delivery_count
        if is_past_trying(tries):
            await self._dead_letter(held, Stop("delivery-limit"), f"handed out {tries} times without a verdict")
            return
        best_effort = False
        try:
            notification = read(held.delivery.message)
            best_effort = notification.event != "completed"
            target = self._outbound.policy.check_url(notification.url)
        except DumbwaiterError as error:
            await self._settle(held, verdicts.of_error(error, tries, most=MAX_TRIES), best_effort=best_effort)
            return
        while (turn := self._take(target.host, held, now=(began := time.monotonic()))) is not None:
            if can_postpone(self._broker):
                await self._hand_back(held, turn, counted=False)
                return
            await asyncio.sleep(turn)
        tenant = held.delivery.message.tenant
        try:
            verdict = await self._try(held, notification, target.place)
        finally:
            now = time.monotonic()
            self._places.release(target.host, tenant, began=began, now=now)
        await self._settle(held, verdict, best_effort=best_effort)

    def _take(self, host: str, held: Held, *, now: float) -> float | None:
        is_first_try = held.delivery.delivery_count == 1
        return self._places.take(host, held.delivery.message.tenant, is_first_try=is_first_try, now=now)

    async def _try(self, held: Held, notification: Notification, place: str) -> Verdict:
        message, tries = held.delivery.message, held.delivery.delivery_count
        most = MAX_TRIES if notification.event == "completed" else PROGRESS_TRIES
        try:
            async with self._composer.composed(notification, message.tenant) as post:
                secret = self._signing.webhook_secret(message.tenant)
                headers = signed(post, secret=secret, id_=message.id, now=time.time())
                response = await self._outbound.post(
                    notification.url, body=post.body, headers=headers, timeout=self._settings.timeout
                )
        except OutboundError as error:
            return verdicts.of_error(error, tries, most=most).at(place)
        except DumbwaiterError as error:
            return verdicts.of_error(error, tries, most=most)
        return verdicts.of_response(response, tries, most=most).at(place)

    # --- settling ---

    async def _settle(self, held: Held, verdict: Verdict, *, best_effort: bool) -> None:
        match verdict.end:
            case Done():
                await self._end(held, self._broker.complete)
            case Again(delay):
                tries = held.delivery.delivery_count
                _log.info("try %d of %s failed, the next one in %.0f s: %s", tries, held.name, delay, verdict.why)
                await self._hand_back(held, delay, counted=True)
            case Stop() as stop if best_effort or stop.reason == verdicts.SUPERSEDED:
                _log.info("%s is dropped (%s): %s", held.name, stop.reason, verdict.why)
                await self._end(held, self._broker.complete)
            case Stop() as stop:
                await self._dead_letter(held, stop, verdict.why)

    async def _dead_letter(self, held: Held, stop: Stop, why: str) -> None:
        async def move(batch: Sequence[Delivery]) -> None:
            await self._broker.dead_letter(batch, reason=stop.reason, detail=why)

        _log.warning("dead-lettered %s: %s: %s", held.name, stop.reason, why)
        await self._end(held, move)

    async def _hand_back(self, held: Held, delay: float, *, counted: bool) -> None:
        async def back(batch: Sequence[Delivery]) -> None:
            await self._broker.abandon(batch, delay=delay, counted=counted)

        if not self._broker.capabilities.abandon_delay:
            await asyncio.sleep(delay)
        await self._end(held, back)

    async def _end(self, held: Held, verb: Callable[[Sequence[Delivery]], Awaitable[None]]) -> None:
        """Call *verb*, the last one for *held*, for a lock's length if need be."""
        held.closing = True
        if await insist_on_broker(verb, [held.delivery], within=self._broker.lock_duration):
            _log.info("%s is not settled: its lock was lost, and another courier has it", held.name)

    def _tell(self, state: str, reason: str = "") -> None:
        if self._on_state is not None:
            self._on_state(state, reason)
