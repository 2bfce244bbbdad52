"""The client library's errors as ours."""

from __future__ import annotations

import ssl

from redis.exceptions import AuthenticationError, InvalidResponse, RedisError, ResponseError

from dumbwaiter.brokers.tls import is_of_tls, tls_step
from dumbwaiter.errors import BrokerUnavailableError


class RefusedError(BrokerUnavailableError):
    """The server answered, and will not do it, or cannot now."""


class NoGroupError(Exception):
    """A stream or its group is not there: the queue was not created, or somebody has deleted a part of it."""


def is_no_script(error: ResponseError) -> bool:
    """Whether the server has forgotten a script: it was restarted, or another one has taken over."""
    return "NOSCRIPT" in str(error) or type(error).__name__ == "NoScriptError"


def of_reply(error: ResponseError, where: str) -> Exception:
    """What the server at *where* refused, or could not do."""
    if "NOGROUP" in str(error):
        return NoGroupError(str(error))
    said = str(error).rstrip(".")
    return RefusedError(f"{where} refuses: {said}{_remedy(said)}")


def of_connection(error: BaseException, where: str, *, with_tls: bool = False) -> BrokerUnavailableError:
    """What the connection to *where* failed with; *with_tls* while one with TLS is made."""
    said = str(error).rstrip(".")
    of_tls = _of_tls(error, said, with_tls=with_tls)
    if of_tls is not None:
        return BrokerUnavailableError(f"cannot reach {where} by TLS: {of_tls}")
    if isinstance(error, InvalidResponse):
        return BrokerUnavailableError(f"what listens at {where} is not Redis or Valkey: {said}; look at the address")
    if isinstance(error, AuthenticationError):
        return BrokerUnavailableError(f"{where} refuses user or password: {said}; {_account_step(said)}")
    if isinstance(error, ResponseError) or said in _NO_DATABASE:
        return RefusedError(f"{where} refuses: {said}{_remedy(said)}")
    if isinstance(error, TimeoutError) and not isinstance(error, RedisError):
        return BrokerUnavailableError(f"{where} does not answer; look whether it is stopped or very busy")
    return BrokerUnavailableError(f"cannot reach {where}: {said}; start it, or look at its address")


def _of_tls(error: BaseException, said: str, *, with_tls: bool) -> str | None:
    if with_tls and isinstance(error, TimeoutError):
        is_plain = "write redis:// if it has no TLS, or look whether it is stopped or very busy"
        return f"it does not answer as a server with TLS does; {is_plain}"
    if isinstance(error, ssl.SSLError) or is_of_tls(said):
        return f"{said}{tls_step(said, plain='redis')}"
    return None


def _account_step(said: str) -> str:
    if "Authentication required" in said:
        return "write them into the URL: redis://user:password@host"
    if "without any password configured" in said:
        return "this server wants none: leave them out of the URL, or set requirepass there"
    return "look at those in the URL"


_NO_DATABASE = ("Invalid Database", "DB index is out of range")
"""What the client library, and the server itself, say of a number that is too high."""
_LOWER = "; the number at the end of the URL is that of a database, and this server has fewer: write /0"

#: What a refusal holds -> the next step. The client library cuts off the word that some begin with.
_REMEDIES = {
    "used memory > 'maxmemory'": "; its memory is full: complete or purge messages, or raise maxmemory",
    "MISCONF": "; it cannot write to its disk: look at its log and at the free space",
    "READONLY": "; it is a replica: write the primary's address",
    "NOREPLICAS": "; too few replicas follow: start them, or lower min-replicas-to-write",
    "NOAUTH": "; write user and password into the URL: redis://user:password@host",
    "WRONGPASS": "; write the right user and password into the URL",
    "ACL failure": "; give this user the rights that docs/brokers/redis.md names",
    "NOPERM": "; give this user the rights that docs/brokers/redis.md names",
    "MOVED": "; it is one node of a cluster with several: write the node's address that it names, for all queues",
    **dict.fromkeys(_NO_DATABASE, _LOWER),
    "LOADING": "; it is still reading its data: wait",
}


def _remedy(text: str) -> str:
    return next((remedy for part, remedy in _REMEDIES.items() if part in text), "")
