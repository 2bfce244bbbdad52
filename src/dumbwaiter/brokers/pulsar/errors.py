"""The client library's errors as ours."""

from __future__ import annotations

from typing import Any

import _pulsar

from dumbwaiter.errors import BrokerError, BrokerUnavailableError, MessageTooLargeError

Result = _pulsar.Result

LARGEST_BODY = 5 * 1024 * 1024 - 256 * 1024
"""What a server takes by default, less room for attributes, a dead letter's detail and the client's own."""

_WRONG_ACCOUNT = (
    Result.AuthenticationError,
    Result.AuthorizationError,
    Result.ErrorGettingAuthenticationData,
    Result.NotAllowedError,
)
_SILENT = (Result.Timeout, Result.ConnectError, Result.NotConnected, Result.ReadError, Result.AlreadyClosed)
_FULL = (Result.ProducerBlockedQuotaExceededError, Result.ProducerBlockedQuotaExceededException)


def error_of(result: Any, said: str, where: str, topic: str = "") -> BrokerError:
    """What *result*, and what the server *said* with it, mean for whoever works with *where*."""
    text = f"{result.name}{': ' + said if said else ''}"
    if result == Result.MessageTooBig:
        return MessageTooLargeError(LARGEST_BODY + 1, LARGEST_BODY)
    if result in _WRONG_ACCOUNT:
        return BrokerUnavailableError(
            f"{where} refuses ({text}); write a valid ?token= into the URL, and give its role the rights that "
            "docs/brokers/pulsar.md names"
        )
    if result in _SILENT:
        return BrokerUnavailableError(f"{where} does not answer ({text}); look whether it runs, and at its address")
    if result in _FULL:
        return BrokerUnavailableError(
            f"{where} takes no more messages for {topic} ({text}): its backlog quota is used up; raise it "
            "(pulsar-admin namespaces set-backlog-quota), or start more workers"
        )
    if result in (Result.TopicNotFound, Result.SubscriptionNotFound, Result.BrokerMetadataError):
        return BrokerUnavailableError(
            f"{where} has no topic {topic} and makes none ({text}); create tenant and namespace, and set "
            "allowAutoTopicCreation=true in broker.conf"
        )
    return BrokerUnavailableError(f"cannot work with {where}: {text} {topic}".rstrip())


def lost(where: str) -> BrokerUnavailableError:
    """The connection has gone."""
    return BrokerUnavailableError(f"the connection to {where} was lost; look whether it runs")
