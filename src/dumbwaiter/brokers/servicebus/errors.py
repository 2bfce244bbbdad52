"""The client library's errors as ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
)

from dumbwaiter.errors import BrokerError, BrokerUnavailableError

_NO_ENTITY = (MessagingEntityNotFoundError, ResourceNotFoundError)
_NO_LOCK = (MessageLockLostError, MessageNotFoundError)
_NO_RIGHT = (ServiceBusAuthenticationError, ServiceBusAuthorizationError, ClientAuthenticationError)

_RIGHT = (
    "; look at the name and the value of the key, in the URL or in AZURE_SERVICEBUS_CONNECTION_STRING, or at the "
    "roles of the identity: docs/brokers/servicebus.md"
)


_STEP = "look at the name of the namespace in the URL and at the network, or start the emulator"


class NoEntityError(Exception):
    """Service Bus has no queue of this name."""


class NoLockError(Exception):
    """Service Bus holds no such lock, or no more."""


class TooLargeError(Exception):
    """Service Bus takes no message of that size."""


class UnaskedError(BrokerUnavailableError):
    """Service Bus could not be reached, so that it was never asked: all is as it was."""


class RightMissingError(BrokerUnavailableError):
    """The key or identity may not do that."""


@contextlib.contextmanager
def translated(where: str, doing: str) -> Iterator[None]:
    """Raise what the client says while it is *doing* something at *where* as BrokerUnavailableError, RightMissingError,
    or one of the three above, which say more.
    """
    try:
        yield
    except (BrokerError, NoEntityError, NoLockError, TooLargeError):
        raise
    except _NO_ENTITY as error:
        raise NoEntityError from error
    except _NO_LOCK as error:
        raise NoLockError from error
    except MessageSizeExceededError as error:
        raise TooLargeError from error
    except _NO_RIGHT as error:
        raise RightMissingError(f"{where} refuses {doing}: {_said(error)}{_RIGHT}") from error
    except HttpResponseError as error:
        kind = RightMissingError if error.status_code in (401, 403) else BrokerUnavailableError
        step = _RIGHT if kind is RightMissingError else ""
        raise kind(f"{where} answered {doing} with {error.status_code}: {_said(error)}{step}") from error
    except Exception as error:  # the client raises ValueError and others too when a connection breaks
        if isinstance(error, TimeoutError) and not str(error):
            raise BrokerUnavailableError(f"{where} did not answer {doing} in time; {_STEP}") from error
        raise BrokerUnavailableError(f"cannot reach {where} for {doing}: {_said(error)}; {_STEP}") from error


def _said(error: Exception) -> str:
    text = error.message if isinstance(error, AzureError) else str(error)
    words = " ".join(str(text or type(error).__name__).split())
    # So aiohttp says with which TLS it tried: "Cannot connect to host HOST:443 ssl:default [why]".
    return words.replace(" ssl:default", "")[:300].rstrip(".")
