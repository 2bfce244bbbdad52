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
    IncompatibleProtocolError,
    ProbableAuthenticationError,
    PublishError,
)

from dumbwaiter.brokers.tls import is_of_tls, tls_step
from dumbwaiter.errors import BrokerError, BrokerUnavailableError

LIBRARY_ERRORS = (AMQPError, ChannelInvalidStateError, OSError, EOFError, TimeoutError)
LEAST_TEXT_AS_LENGTH = 0x20_00_00_00
"""Printable text, read as the length of a frame in bytes, is at least this; no server is set to frames of 512 MiB."""


class MissingQueueError(Exception):
    """The server has no queue of this *name*."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"no queue {name!r}")


class PreconditionError(BrokerUnavailableError):
    """The server has a queue of that name with other arguments, or wants no message of that size."""


class OtherKindError(BrokerError):
    """The server has a queue of that name, and it is no quorum queue of ours."""


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
    said = _said(error)
    if isinstance(error, (AuthenticationError, ProbableAuthenticationError)):
        step = "look at those in the URL; without any it is guest, who may come from the server's own machine only"
        return BrokerUnavailableError(f"{where} refuses user or password: {said}; {step}")
    if isinstance(error, ChannelAccessRefused):
        return BrokerUnavailableError(
            f"{where} refuses: {said}; give this user the rights that docs/brokers/rabbitmq.md names"
        )
    if isinstance(error, TimeoutError):
        return BrokerUnavailableError(
            f"{where} does not answer; look whether what listens there is RabbitMQ, and whether it is very busy, or "
            "out of memory or disk space (rabbitmq-diagnostics alarms)"
        )
    if is_of_tls(said):
        return BrokerUnavailableError(f"cannot reach {where} by TLS: {said}{tls_step(said, plain='amqp')}")
    if _is_foreign(error):
        return BrokerUnavailableError(f"what listens at {where} is not RabbitMQ: {said}; look at the address")
    return BrokerUnavailableError(f"cannot work with {where}: {said}; start it, or look at its address and log")


def _is_foreign(error: BaseException) -> bool:
    """Whether what answered does not speak AMQP 0-9-1."""
    cause = error.__cause__
    is_text = isinstance(cause, asyncio.IncompleteReadError) and (cause.expected or 0) >= LEAST_TEXT_AS_LENGTH
    return is_text or isinstance(error, IncompatibleProtocolError)


def _said(error: BaseException) -> str:
    return str(error).rstrip(".") or type(error).__name__
