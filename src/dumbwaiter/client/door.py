"""The port of the clients: the way to the models, and back. Adapters: broker_door.py and gateway_door.py.

Messages go in and answers come out; values are encoded and decoded above. Each adapter says as data where it differs,
so that nobody above has to ask which one it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from enum import Enum
from types import TracebackType
from typing import ClassVar, NamedTuple, Self

import msgspec

from dumbwaiter.asking import Pending
from dumbwaiter.client.uploading import Source, Upload
from dumbwaiter.message import Message
from dumbwaiter.prediction import Status


class Cancellation(Enum):
    """What became of cancelling a kept request. All but ENDED are true: it will not run, or not to its end."""

    CANCELED = "canceled"
    """It will not run, or is stopped."""
    UNKNOWN = "unknown"
    """It will not run. But nothing is known of it, neither a result nor an event nor, where the broker can tell, a
    message that waits: perhaps there never was one of this id.
    """
    ENDED = "ended"
    """It had ended otherwise before."""

    def __bool__(self) -> bool:
        return self is not Cancellation.ENDED


class PredictionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a kept request is. *queue_position* counts those that are served before it; None: it does not wait in the
    queue, or the broker does not know.
    """

    status: Status
    queue_position: int | None = None


class Event(NamedTuple):
    """Something that happened to a kept request while it ran; *body* is of *content_type*. *id* is blobs.events' own,
    where it is known.
    """

    kind: str
    content_type: str | None
    body: bytes
    id: str = ""


class Submitted(NamedTuple):
    """A request that was confirmed. *pending* is what its answer can be awaited on; None when it is kept."""

    id: str
    pending: Pending | None


class Door(ABC):
    """Use it in one event loop, with ``async with``. Every method may be called from many tasks at once.

    A call that waits while the door is closed raises BrokerClosedError. Cancelling a call gives up its request.
    """

    counts_patience: ClassVar[bool]
    """Whoever is behind it is told how long the caller waits, and drops the request by a clock of its own."""
    takes_keys: ClassVar[bool]
    """Requests with the same idempotency key are one request."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Open it. Raises what opening raises; nothing is left open then."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""

    @abstractmethod
    async def ask(self, model: str, message: Message, *, timeout: float) -> Message:
        """The answer to *message*, an output or a failure, within *timeout* seconds.

        What is away for a moment is asked again meanwhile, for the same request.

        Raises PredictionTimeoutError, QueueNotFoundError, BlobError, BrokerUnavailableError or GatewayError.
        """

    @abstractmethod
    async def submit(self, model: str, message: Message, *, keep: bool, timeout: float | None = None) -> Submitted:
        """Hand in *message*; it is confirmed when this returns. While a broker is away it is sent again for *timeout*
        seconds (None: never). Raises as ask() does.
        """

    @abstractmethod
    async def load(self, id_: str) -> Message:
        """The kept answer of *id_*, body included. Raises BlobNotFoundError while there is none."""

    @abstractmethod
    async def await_result(self, id_: str, timeout: float | None) -> Message:
        """As load(), within *timeout* seconds (None: however long it takes). Raises PredictionTimeoutError."""

    @abstractmethod
    async def status(self, id_: str, model: str | None) -> PredictionStatus:
        """Where the kept request *id_* is; *model*, where it is known, tells in which queue to look."""

    @abstractmethod
    async def cancel(self, id_: str) -> Cancellation:
        """Cancel the kept request *id_*, also one of which nothing is known here: it may wait all the same."""

    @abstractmethod
    async def upload(self, source: Source) -> Upload:
        """Put *source* where a request can name it. Raises ConfigError where requests cannot."""

    @abstractmethod
    def follow(self, id_: str, timeout: float) -> AsyncGenerator[Event]:
        """What happens to the kept request *id_*, from its start on; ends when its answer can be loaded.

        It goes on through outages of a gateway that last no longer than *timeout* seconds.
        """
