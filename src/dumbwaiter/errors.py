"""Every error that dumbwaiter raises on purpose. Each carries its data, so that callers need not parse text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dumbwaiter.message import Delivery, Failure


class DumbwaiterError(Exception):
    """Base of all errors raised by dumbwaiter."""


class ConfigError(DumbwaiterError):
    """A setting is unknown or has a wrong value; the text names the place (file and line, variable or flag)."""


class MissingExtraError(DumbwaiterError):
    """An optional dependency is not installed: *package*, which pip calls *distribution* where that is another name.

    *wanted* is what was asked for that needs it, as it was written.
    """

    def __init__(self, package: str, extra: str, distribution: str | None = None, *, wanted: str = "") -> None:
        self.package = package
        self.extra = extra
        self.distribution = distribution or package
        whose = f"{wanted}: " if wanted else ""
        super().__init__(
            f"{whose}{self.distribution} is not installed; install it with: pip install 'dumbwaiter[{extra}]'"
        )


# --- broker -----------------------------------------------------------------


class BrokerError(DumbwaiterError):
    """Base of what a broker adapter raises."""


class BrokerUnavailableError(BrokerError):
    """The broker cannot be reached or refuses to work now (down, disk full); the same call may succeed later."""


class BrokerClosedError(BrokerError):
    """The broker object was closed (or never opened) by this process."""

    def __init__(self, message: str = "this broker is not open; use it inside `async with`") -> None:
        super().__init__(message)


class QueueNotFoundError(BrokerError):
    """No such queue; it is created by the worker of the model, or with create_queue. *where* is the broker's URL, as
    far as it may be shown, where several could be meant.
    """

    where: str | None = None

    def __init__(self, queue: str, *, where: str | None = None) -> None:
        self.queue = queue
        self.where = where
        if where is None:
            what = f"no queue named {queue!r}; start a worker for it, or call create_queue({queue!r}) first"
        else:
            what = f"no queue named {queue!r} on {where}; start a worker for it there, or name the broker that has one"
        super().__init__(what)


class InvalidQueueNameError(BrokerError):
    """Not every broker could take this name for a queue."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"{name!r} cannot name a queue: use letters, digits, '.', '_' and '-' (at most 80), "
            "the first one a letter or digit"
        )


class DeadLetterNotFoundError(BrokerError):
    """No such dead letters: *names* are neither keys nor message ids of any in *queue*."""

    def __init__(self, queue: str, names: Sequence[str]) -> None:
        self.queue = queue
        self.names = list(names)
        super().__init__(
            f"no dead letter {', '.join(names)} in queue {queue!r}; see: dumbwaiter dead-letters list {queue}"
        )


class LockLostError(BrokerError):
    """Locks that this holder no longer has: another worker may hold these messages by now.

    *deliveries* are those that were lost; the others of the same call were settled or renewed,
    and for renew_lock they are in *renewed*.
    """

    def __init__(self, deliveries: Sequence[Delivery], renewed: Sequence[Delivery] = ()) -> None:
        self.deliveries = list(deliveries)
        self.renewed = list(renewed)
        ids = ", ".join(d.message.id for d in self.deliveries[:3])
        more = "" if len(self.deliveries) <= 3 else f" and {len(self.deliveries) - 3} more"
        super().__init__(f"lock lost on {len(self.deliveries)} message(s): {ids}{more}")


class MessageTooLargeError(BrokerError):
    """A message exceeds what the broker takes; send it by claim check instead."""

    def __init__(self, nbytes: int, limit: int) -> None:
        self.nbytes = nbytes
        self.limit = limit
        super().__init__(f"message of {nbytes} bytes exceeds this broker's limit of {limit}; send it by claim check")


class InboxGoneError(BrokerError):
    """The inbox that a reply was addressed to no longer exists: whoever asked has gone away."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(f"no inbox at {address!r}: whoever asked has gone away")


# --- blob store -------------------------------------------------------------


class BlobError(DumbwaiterError):
    """Base of what the blob store raises; also raised as is when the store is unreachable or full."""


class BlobNotFoundError(BlobError):
    """No object under this key."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"no blob under {key!r}")


class BlobExistsError(BlobError):
    """create() found an object under this key: the first writer has won."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"a blob already exists under {key!r}")


class BlobDamagedError(BlobError):
    """*what* is in the blob store and cannot be read as what it should be; asking again cannot help.

    *reason* says why. The text names neither a store nor a host, so it may be shown outside.
    """

    def __init__(self, what: str, reason: str) -> None:
        self.what = what
        self.reason = reason
        super().__init__(f"{what} {reason}")


# --- reaching out -----------------------------------------------------------


class ForbiddenUrlError(DumbwaiterError):
    """A URL that a caller named must not be reached. *reason* tells no more about this network than the URL did."""

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        shown = url if len(url) <= 200 else f"{url[:200]}..."
        super().__init__(f"{shown!r} must not be reached: {reason}")


class OutboundError(DumbwaiterError):
    """A URL that a caller named could not be reached, or what came from there cannot be used.

    *transient*: the same call may succeed later. *status* is that of the HTTP response, where there was one.
    """

    def __init__(self, message: str, *, transient: bool, status: int | None = None) -> None:
        self.transient = transient
        self.status = status
        super().__init__(message)


# --- model and prediction ---------------------------------------------------


class ModelLoadError(DumbwaiterError):
    """The model's class cannot be imported, its weights cannot be read, or its constructor raised."""


class TransientError(DumbwaiterError):
    """A model may raise this (or a subclass): try again later, with back-off."""


class PermanentError(DumbwaiterError):
    """A model may raise this (or a subclass): trying again cannot help; dead-letter at once."""


class BadInputError(PermanentError):
    """The request's body cannot be decoded into what the model takes."""


class SignalUnknownError(DumbwaiterError):
    """The broker cannot tell *what*, which scaling by *signal* is to follow."""

    def __init__(self, what: str, signal: str) -> None:
        self.what = what
        self.signal = signal
        super().__init__(
            f"scaling by {signal} follows {what}, which this broker cannot tell; set another scaling.signal, or a fixed"
            " number of replicas"
        )


class PredictionError(DumbwaiterError):
    """A request was answered with a failure. *failure* says what, why and how often it was tried."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(f"{failure.code}: {failure.message}")


class PredictionTimeoutError(DumbwaiterError, TimeoutError):
    """No answer came within the caller's patience; the request may still be waiting or running."""


# --- gateway, as its callers see it -----------------------------------------


class GatewayError(DumbwaiterError):
    """The gateway at *url* refused a request, or cannot be spoken to, and it is no answer of the model's.

    *status* is that of HTTP, None when there was no response; *code* is the problem's (``rate-limited`` ...), *detail*
    its line for people, and *retry_after* the seconds after which another try makes sense, where the gateway said so.
    """

    def __init__(
        self, url: str, detail: str, *, status: int | None = None, code: str = "", retry_after: float | None = None
    ) -> None:
        self.url = url
        self.detail = detail
        self.status = status
        self.code = code
        self.retry_after = retry_after
        said = "" if status is None else f" answered {status}{f' {code}' if code else ''}"
        # Not super(): next to it stand errors that are made of other data.
        Exception.__init__(self, f"gateway {url}{said}: {detail}")


class GatewayUnavailableError(GatewayError):
    """The gateway cannot be reached, hung up, or cannot serve now (502, 503); the same call may succeed later."""


class PredictionOutOfReachError(GatewayUnavailableError):
    """The gateway was away for as long as somebody would wait for the kept prediction *id*, which can be asked for
    again; *error* is what befell the last try.
    """

    def __init__(self, id_: str, error: GatewayUnavailableError) -> None:
        self.id = id_
        detail = f"{error.detail}; it was asked about the kept request {id_}"
        super().__init__(error.url, detail, status=error.status, code=error.code, retry_after=error.retry_after)


class UploadError(DumbwaiterError):
    """The blob store at *url* did not take what a client put there. *status* is that of HTTP, None when there was no
    response; *may_pass*: putting it again may work.
    """

    def __init__(self, url: str, detail: str, *, status: int | None = None, may_pass: bool = True) -> None:
        self.url = url
        self.detail = detail
        self.status = status
        self.may_pass = may_pass
        said = "" if status is None else f" answered {status}"
        super().__init__(f"uploading to {url}{said}: {detail}")


class AccessError(GatewayError):
    """The gateway wants an API key, or another one (401), or this key may not do that (403)."""


class InputRefusedError(GatewayError, BadInputError):
    """The gateway does not take such an input: it is empty, too large, not what it says it is."""


class UnknownModelError(GatewayError, QueueNotFoundError):
    """The gateway knows no such *model*; *models* are those that it does know."""

    def __init__(self, url: str, model: str, detail: str, models: Sequence[str] = ()) -> None:
        GatewayError.__init__(self, url, detail, status=404, code="unknown-model")
        self.queue = self.model = model
        self.models = list(models)


class PredictionNotFoundError(GatewayError):
    """The gateway has given out no such *id*, or not to this tenant."""

    def __init__(self, url: str, id_: str, detail: str) -> None:
        self.id = id_
        super().__init__(url, detail, status=404, code="unknown-prediction")
