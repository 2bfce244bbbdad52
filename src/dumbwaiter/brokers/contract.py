"""The broker contract: at-least-once, peek-lock. One package per product implements it; `dumbwaiter.testing` proves it.

Who does what:

* An adapter does not retry, back off or log: it raises, and the runtime above decides. It does reconnect by itself.
* Verbs take batches, because brokers pipeline and devices batch. An empty batch is a no-op.
* Every verb may be called from many tasks of one event loop at once. Cancelling a call never loses a message:
  a cancelled receive leaves nothing locked (or hands it back).
* A stale lock token never settles a message that someone else holds by now (fencing). Where the product would
  accept it, the adapter refuses.
* A failed look-up raises; it never becomes 0 or an empty list.
* Where a product cannot keep a delay (capabilities.send_delay, abandon_delay), the message is ready at once: handing
  a message back must never fail for that. Whoever depends on a delay reads the capability.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Literal, Self

import msgspec

from dumbwaiter.brokers.findings import Finding
from dumbwaiter.errors import InvalidQueueNameError, LockLostError, QueueNotFoundError
from dumbwaiter.message import DeadLetter, Delivery, Message, QueueStats, is_queue_name

DEFAULT_LOCK_DURATION = 30.0
POSITION_LIMIT = 10_000
"""position counts no further."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker can do, as data. The runtime and the conformance suite read it; nobody tests for a product."""

    durable: bool
    """Confirmed messages survive kill -9 and restart of whatever holds them."""
    multi_process: bool
    """Several processes can share the queue."""
    ordered: bool
    """Messages of equal priority are handed out in the order in which they were sent."""
    priority: bool
    """A larger priority is served before a smaller one."""
    strict_priority: bool
    """Always so. Otherwise priorities are lanes, and of those that wait the low ones get a small share too."""
    abandon_delay: bool
    """abandon keeps a *delay*; otherwise the message is ready at once."""
    send_delay: bool
    """send keeps a *delay*; otherwise the messages are ready at once."""
    uncounted_abandon: bool
    """abandon(counted=False) takes back the delivery's count."""
    deduplication: bool
    """A second send of the same message id to the same queue is dropped for a while."""
    forgets_purged: bool
    """A message id that was purged may be sent anew at once; otherwise it stays dropped for that while."""
    portable_tokens: bool
    """Whoever has a delivery may settle it; otherwise only the broker object that received it: another one settles
    nothing, and raises LockLostError."""
    lists_queues: bool
    """queues lists the names; otherwise only has_queue tells whether there is one."""
    counts_ready: bool
    """stats tell how many messages are ready and how many delayed; otherwise both are None."""
    counts_locked: bool
    """stats tell how many messages are locked; otherwise that is None."""
    counts_dead: bool
    """stats tell how many dead letters there are; otherwise that is None, and only dead_letters shows them."""
    knows_gone_inboxes: bool
    """reply to an inbox that was closed raises InboxGoneError; otherwise such a reply is lost in silence."""
    oldest_age: bool
    """stats tell the age of the oldest ready message; otherwise it is None."""
    queue_position: bool
    """position tells how many messages are served before a given one."""
    max_message_nbytes: int | None
    """Largest body the broker takes; above it send raises MessageTooLargeError. None: no fixed limit."""
    ready_includes_locked: bool = False
    """What stats count as ready are the locked ones too, for the product tells them as one; locked is None then."""
    killed_holder: Literal["freed", "taken_back", "kept"] = "kept"
    """What becomes of the locks of a process that was killed: the product frees them at once, with its connection; or
    take_back does, for whoever knows that it is dead; or they are kept until they run out."""


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What it takes to hand a delivery back once its holder is dead, as text that can be written down.

    *token* is the adapter's own; until *held_until*, on time.monotonic(), nobody else can hold the message.
    """

    queue: str
    token: str
    held_until: float


class Inbox(ABC):
    """Where replies arrive. Iterate it, or call receive(); close it with the broker or by itself."""

    address: str

    @abstractmethod
    async def receive(self, *, max_messages: int, max_wait: float) -> list[Message]:
        """Take up to *max_messages* replies; wait at most *max_wait* seconds for the first. Taken is gone.

        Raises BrokerClosedError, also while it waits, and BrokerUnavailableError; replies under way may be lost then.
        """

    @abstractmethod
    async def close(self) -> None:
        """Forget the address: later replies to it raise InboxGoneError at the sender where the product tells (see
        capabilities.knows_gone_inboxes), and are lost elsewhere.
        """

    async def __aiter__(self) -> AsyncIterator[Message]:
        while True:
            for message in await self.receive(max_messages=1000, max_wait=60.0):
                yield message


class Broker(ABC):
    """A message broker with peek-lock queues. Open it with ``async with``; see the module text for the rules.

    *url* says where; *lock_duration* is how long a delivery stays locked unless renewed, in seconds. The constructor
    does no I/O, and raises ConfigError for a URL that it cannot read.

    *capabilities* are those of the server at hand, whose version and configuration they may depend on: they are final
    once open() has returned. Until then they are what its adapter's class says, the usual.
    """

    capabilities: Capabilities

    def __init__(self, url: str, *, lock_duration: float = DEFAULT_LOCK_DURATION) -> None:
        self.url = url
        self.lock_duration = lock_duration

    @abstractmethod
    async def open(self) -> None:
        """Connect. Raises BrokerUnavailableError, naming the address and the reason."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect and hand back at once what this object still holds locked, uncounted where
        capabilities.uncounted_abandon. Closing twice is no error.

        Afterwards every verb raises BrokerClosedError, also those that were waiting.
        """

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def check(self) -> None:
        """Return if this broker works now, its write path included; nothing is changed by it.

        Raises BrokerUnavailableError. It may take as long as a send does: who is in a hurry sets a timeout.
        """

    @abstractmethod
    async def examine(self, *, longest_run: float | None = None) -> list[Finding]:
        """What the server as it is configured guarantees, and what should be changed: for people, by `doctor`.

        *longest_run* is how long the longest run of a model takes, in seconds, if that is known: locks and time-outs of
        the server must be able to last so long. Everything is read from the live server. An adapter without
        capabilities.lists_queues looks at those queues that it was asked for before, with has_queue() too. Raises
        BrokerUnavailableError.
        """

    def examine_unopened(self) -> list[Finding] | None:
        """As examine(), where open() would make the very thing to look at; None where there is something to open.

        Makes nothing. Raises BrokerUnavailableError where open() would.
        """
        return None

    # --- queues ---

    async def create_queue(self, queue: str) -> None:
        """Declare *queue* and its dead-letter queue. Idempotent.

        Raises InvalidQueueNameError for a name that is_queue_name() refuses. A product that takes less than that has
        an adapter that maps names there and back, no two to one.
        """
        if not is_queue_name(queue):
            raise InvalidQueueNameError(queue)
        await self._create_queue(queue)

    @abstractmethod
    async def _create_queue(self, queue: str) -> None:
        """create_queue for a name that has been checked; adapters implement it, nobody else calls it."""

    @abstractmethod
    async def queues(self) -> list[str]:
        """The names of all queues, sorted. For adapters with capabilities.lists_queues; nobody asks the others."""

    async def has_queue(self, queue: str) -> bool:
        """Whether *queue* was created. Raises BrokerUnavailableError."""
        return queue in await self.queues()

    @abstractmethod
    async def send(self, queue: str, messages: Sequence[Message], *, delay: float = 0.0) -> None:
        """Append *messages*; return when the broker has confirmed all of them, durably where it is durable.

        They become ready after *delay* seconds. All or none where the product can; on an error the caller
        resends with the same message ids. Raises QueueNotFoundError, MessageTooLargeError (before anything
        is sent), BrokerUnavailableError.
        """

    @abstractmethod
    async def receive(self, queue: str, *, max_messages: int, max_wait: float) -> list[Delivery]:
        """Lock up to *max_messages*, by priority and then age; return early with what there is.

        An empty list means that *max_wait* seconds passed in silence. Never more than asked for: of a *max_messages*
        below 1 the empty list is returned at once, and nothing is looked at, not even whether there is such a queue.
        Raises QueueNotFoundError, BrokerUnavailableError.
        """

    # --- settling; each may raise LockLostError carrying those deliveries that someone else holds by now ---
    #
    # After BrokerUnavailableError nobody knows whether it was done. The same call may be repeated until it returns or
    # raises LockLostError. What was done already is not done again, but where a product moves a message by a copy of it
    # there may be two then, each of them delivered at least once.

    @abstractmethod
    async def complete(self, deliveries: Sequence[Delivery]) -> None:
        """Remove the messages for good. Completing one that is gone already is no error."""

    @abstractmethod
    async def abandon(self, deliveries: Sequence[Delivery], *, delay: float = 0.0, counted: bool = True) -> None:
        """Hand the messages back: ready again after *delay* seconds.

        By priority, but not always at their old place: capabilities.ordered is about the first delivery of each, and a
        product may have one that comes again before or behind those that wait.

        With ``counted=False`` this delivery does not count (where capabilities.uncounted_abandon).
        """

    @abstractmethod
    async def dead_letter(self, deliveries: Sequence[Delivery], *, reason: str, detail: str = "") -> None:
        """Move the messages to the dead-letter queue with a short *reason* code and a *detail* for people."""

    @abstractmethod
    async def renew_lock(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Hold the messages for another lock_duration from now; the new deliveries, in the same order.

        Renewing keeps the lock token: a delivery from before it settles the message as well as the new one does.

        Raises LockLostError for those whose lock ran out or moved on; its *renewed* holds the others.
        """

    # --- when a holder has died; for adapters with capabilities.killed_holder "taken_back", no-ops of the others ---

    def claim_of(self, delivery: Delivery) -> Claim | None:
        """What take_back needs once this process is dead; None where *delivery* cannot be taken back, is lost, or was
        handed back because this broker is closed.

        Renewing the lock makes a new claim. Whoever writes claims down strikes one out before it abandons its delivery:
        not every product can tell an old claim from the lock of the next holder.
        """
        if self.capabilities.killed_holder != "taken_back" or not self.capabilities.portable_tokens:
            return None
        return Claim(delivery.queue, delivery.lock_token, delivery.locked_until)

    def claim_to_all(self, queue: str) -> Claim | None:  # noqa: ARG002 - it is for those that override it
        """One claim to all that this broker object holds of *queue*, now and later, which never ends; None where the
        product cannot tell what that is: then each delivery has a claim of its own.
        """
        return None

    async def take_back(self, claims: Sequence[Claim]) -> int:
        """Make ready at once what a process held that is dead for sure; their deliveries stay counted.

        Claims whose time is over are passed over, for somebody else may hold the message; settled and unknown ones are
        no error. Returns how many were handed back, as far as the product tells. Raises BrokerUnavailableError.
        """
        if self.capabilities.killed_holder != "taken_back":
            return 0
        now = time.monotonic()
        standing = [claim for claim in claims if now < claim.held_until]
        return await self._take_back(standing) if standing else 0

    async def _take_back(self, claims: Sequence[Claim]) -> int:
        """take_back of claims that stand. An adapter overrides this where its abandon needs more of a delivery than
        queue and lock token, or where its tokens are not portable.
        """
        by_queue: dict[str, list[Delivery]] = {}
        for claim in claims:
            by_queue.setdefault(claim.queue, []).append(_unread(claim))
        count = 0
        for deliveries in by_queue.values():
            try:
                await self.abandon(deliveries)
                count += len(deliveries)
            except LockLostError as error:
                count += len(deliveries) - len(error.deliveries)
            except QueueNotFoundError:
                continue
        return count

    # --- looking ---

    @abstractmethod
    async def stats(self, queue: str) -> QueueStats:
        """Counts of *queue*, at most a second old, or as old as its page in docs/brokers says. Raises; never guesses 0:
        what the product cannot tell is None (see capabilities.counts_ready, counts_locked, counts_dead and oldest_age).
        """

    async def position(self, queue: str, message_id: str) -> int | None:
        """How many ready messages of *queue* are served before *message_id* as things stand: 0 for the next one.

        At most POSITION_LIMIT, which means that many or more, so that a look is quick however long the queue is. None
        when it does not wait there: locked, delayed, dead, gone, or never sent. Raises QueueNotFoundError. For adapters
        with capabilities.queue_position; nobody asks the others.
        """
        raise NotImplementedError(f"{type(self).__name__} has no queue_position; ask its capabilities first")

    @abstractmethod
    async def dead_letters(self, queue: str, *, limit: int = 100, after: str | None = None) -> list[DeadLetter]:
        """The oldest *limit* dead letters, without removing them; only those behind the key *after*, unless None.

        So they can be read page by page, for bodies may be large: the key of a page's last one leads to the next page,
        also when that dead letter is gone by then. Fewer than *limit* means that there are no more; what dies meanwhile
        may be met or not. Raises DeadLetterNotFoundError when *after* is no key at all.
        """

    async def is_dead_letter(self, queue: str, key: str) -> bool:
        """Whether the dead letter *key* is there still. Raises QueueNotFoundError.

        This looks through all of them; an adapter that can ask for one does that.
        """
        after = None
        while page := await self.dead_letters(queue, after=after):
            if any(letter.key == key for letter in page):
                return True
            after = page[-1].key
        return False

    @abstractmethod
    async def redrive(self, queue: str, keys: Sequence[str] | None = None) -> int:
        """Send dead letters back to their queue with a fresh delivery count; all of them if *keys* is None.

        Returns how many.
        """

    @abstractmethod
    async def purge(self, queue: str, keys: Sequence[str] | None = None) -> int:
        """Delete dead letters for good; all of them if *keys* is None. Returns how many.

        Their ids are forgotten too: whoever sends one anew has a new wish (see capabilities.forgets_purged).
        """

    # --- request-reply ---

    @abstractmethod
    async def open_inbox(self) -> Inbox:
        """A fresh private address for replies, readable by this process only."""

    @abstractmethod
    async def reply(self, address: str, messages: Sequence[Message]) -> None:
        """Put *messages* into the inbox at *address*; raises InboxGoneError when its owner is known to be gone (see
        capabilities.knows_gone_inboxes).

        A reply needs to outlive the worker, not the asker: it need not be synced to disk.
        """


def _unread(claim: Claim) -> Delivery:
    return Delivery(
        message=_UNREAD, queue=claim.queue, lock_token=claim.token, locked_until=claim.held_until, delivery_count=1
    )


_UNREAD = Message(id="unread")
