"""The client library's errors as ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    ProbableAuthenticationError,
    PublishError,
)

from dumbwaiter.errors import BrokerUnavailableError

LIBRARY_ERRORS = (AMQPError, ChannelInvalidStateError, OSError, EOFError, TimeoutError)


class MissingQueueError(Exception):
    """The server has no queue of this *name*."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"no queue {name!r}")


class PreconditionError(BrokerUnavailableError):
    """The server has a queue of that name with other arguments, or wants no message of that size."""


class RefusedError(BrokerUnavailableError):
    """The physical queue *name* of the server at *where* has not stored a message, and said so (basic.nack)."""

    def __init__(self, where: str, name: str) -> None:
        super().__init__(
            f"queue {name!r} at {where} takes no messages: it has no leader (rabbitmq-queues quorum_status {name}), or "
            "is at the length that a policy of the server allows"
        )


@contextlib.contextmanager
def translated(where: str, name: str = "") -> Iterator[None]:
    """Raise what the library does with the server at *where* as BrokerUnavailableError; what tells that the physical
    queue *name* is missing as MissingQueueError.
    """
    try:
        yield
    except (ChannelNotFoundEntity, PublishError) as error:
        raise MissingQueueError(name or str(error)) from None
    except DeliveryError:
        raise RefusedError(where, name) from None
    except ChannelPreconditionFailed as error:
        raise PreconditionError(f"{where} refuses: {error}") from None
    except LIBRARY_ERRORS as error:
        raise unavailable(error, where) from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        # So the library ends what waits on a channel that is closed without a reason.
        raise _lost(where) from error
    except asyncio.CancelledError:
        # The library ends what waits for a lost connection like this too, and then nobody has cancelled this task.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise _lost(where) from None


def _lost(where: str) -> BrokerUnavailableError:
    return BrokerUnavailableError(f"the connection to {where} was lost; look whether it runs")


def unavailable(error: BaseException, where: str) -> BrokerUnavailableError:
    """What keeps the server at *where* from working."""
    if isinstance(error, (AuthenticationError, ProbableAuthenticationError)):
        return BrokerUnavailableError(f"{where} refuses user or password: {_said(error)}; write them into the URL")
    if isinstance(error, ChannelAccessRefused):
        return BrokerUnavailableError(
            f"{where} refuses: {_said(error)}; give this user the rights that docs/brokers/rabbitmq.md names"
        )
    if isinstance(error, TimeoutError):
        return BrokerUnavailableError(
            f"{where} does not answer; look whether it is very busy, or out of memory or disk space "
            "(rabbitmq-diagnostics alarms)"
        )
    return BrokerUnavailableError(f"cannot work with {where}: {_said(error)}; start it, or look at its address and log")


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
