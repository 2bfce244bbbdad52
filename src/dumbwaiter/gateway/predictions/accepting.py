"""Accepting requests whose answers are kept: under a signed id, once for each idempotency key."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.blobs.acceptances import Acceptance, accept, find_acceptance
from dumbwaiter.blobs.claimcheck import check_in, claim_nbytes, drop
from dumbwaiter.errors import BlobDamagedError, BlobError, BlobNotFoundError, ForbiddenUrlError
from dumbwaiter.gateway.http.problems import ProblemError, problem
from dumbwaiter.gateway.predictions.outputs import Kept, kept_of
from dumbwaiter.message import KEEP, WEBHOOK, WEBHOOK_EVENTS, Message

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.config import GatewaySettings
    from dumbwaiter.gateway.predictions.inputs import Controls
    from dumbwaiter.outbound import AddressPolicy
    from dumbwaiter.signing import SigningKey


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was accepted: the *message* to send, again if it *is_again*, and what is shown of it.

    *owns_body*: the body that *message* claims is needed by nobody else, and goes where this is not sent. Otherwise it
    belongs to what was accepted under the key, and whoever comes with that sends it, a worker may have it in hand, and
    a dead letter be redriven with it.
    """

    message: Message
    owns_body: bool
    model: str
    is_again: bool
    kept: Kept

    @property
    def id(self) -> str:
        """The prediction's id."""
        return self.message.id


class Acceptor:
    """Accepts for all tenants. Bodies of more than *threshold* bytes go into *store*."""

    def __init__(
        self,
        store: BlobStore,
        signing: SigningKey,
        policy: AddressPolicy,
        options: GatewaySettings,
        *,
        threshold: int,
    ) -> None:
        self._store = store
        self._signing = signing
        self._policy = policy
        self._options = options
        self._threshold = threshold

    async def accept(self, request: Message, *, model: str, controls: Controls, digest: str) -> Accepted:
        """Accept *request*, whose id is yet to be given. With an idempotency key it may have been accepted before.

        Raises ProblemError (409 for a key that was used for another request; 422 for a webhook that may not be
        reached) and BlobError; a body that lies in the store is dropped then.
        """
        now = time.time()
        try:
            self._check(controls)
            id_ = self._signing.new_id(model, request.tenant, now=now)
            # Durably: the request is kept although its caller may go away.
            request = await check_in(self._store, msgspec.structs.replace(request, id=id_), threshold=self._threshold)
        except BaseException:
            await self.drop(request)
            raise
        mine = Acceptance(id=id_, digest=digest, created_at=now, data_ref=request.data_ref)
        first = await self._first(request, model, mine)
        if first is mine:
            owns_body = request.idempotency_key is None
            return self._accepted(request, model, controls, is_again=False, owns_body=owns_body)
        taken = await self._in_place_of(request, first)
        owns_body = taken.data_ref != first.data_ref
        return self._accepted(taken, model, controls, is_again=True, owns_body=owns_body)

    async def knows(self, request: Message, model: str) -> bool:
        """Whether a request to *model* was accepted before with the key of *request*. Raises BlobError."""
        if request.idempotency_key is None:
            return False
        try:
            await find_acceptance(self._store, request.tenant, model, request.idempotency_key)
        except BlobNotFoundError:
            return False
        return True

    def deadline_of(self, request: Message, *, created_at: float) -> float | None:
        """The request's own, or earlier: when nobody could fetch the answer any more."""
        kept_for = self._options.results_kept_for
        if not kept_for:
            return request.deadline
        return min(request.deadline or math.inf, created_at + kept_for)

    async def drop(self, request: Message) -> None:
        """Nobody needs the body of *request* that lies in the store. Losing this race costs disk space only."""
        try:
            await drop(self._store, request)
        except BlobError:
            return

    async def drop_own(self, accepted: Accepted) -> None:
        """*accepted* is not sent: nobody needs the body that is its own, if one is."""
        if accepted.owns_body:
            await self.drop(accepted.message)

    def _check(self, controls: Controls) -> None:
        if controls.webhook is None:
            return
        try:
            self._policy.check_url(controls.webhook)
        except ForbiddenUrlError as error:
            raise problem(422, "forbidden-url", f"webhook {error}") from None

    async def _first(self, request: Message, model: str, mine: Acceptance) -> Acceptance:
        key = request.idempotency_key
        if key is None:
            return mine
        try:
            first = await accept(self._store, request.tenant, model, key, mine)
            if first.digest != mine.digest:
                raise _conflict(key)
        except (ProblemError, BlobDamagedError):
            await self.drop(request)
            raise
        # After any other error *mine* may stand there, and another gateway be sending what it names.
        return mine if first.id == mine.id else first

    async def _in_place_of(self, request: Message, first: Acceptance) -> Message:
        """*request* as it was accepted first. Its body need not lie in the store twice."""
        try:
            is_there = await self._is_there(first.data_ref)
        except BaseException:
            await self.drop(request)
            raise
        if is_there:
            await self.drop(request)
            return msgspec.structs.replace(request, id=first.id, body=b"", data_ref=first.data_ref)
        return msgspec.structs.replace(request, id=first.id)

    async def _is_there(self, data_ref: str | None) -> bool:
        if data_ref is None:
            return False
        try:
            await claim_nbytes(self._store, data_ref)
        except BlobNotFoundError:
            return False
        return True

    def _accepted(
        self, request: Message, model: str, controls: Controls, *, is_again: bool, owns_body: bool
    ) -> Accepted:
        kept = kept_of(request.id, self._options.public_url)
        extensions = {KEEP: "true"}
        if controls.webhook is not None:
            extensions[WEBHOOK] = controls.webhook
            if controls.webhook_events is not None:
                extensions[WEBHOOK_EVENTS] = ",".join(controls.webhook_events)
        message = msgspec.structs.replace(
            request,
            correlation_id=request.id,
            extensions=extensions,
            time=kept.created_at,
            deadline=self.deadline_of(request, created_at=kept.created_at),
        )
        return Accepted(message=message, owns_body=owns_body, model=model, is_again=is_again, kept=kept)


def _conflict(key: str) -> ProblemError:
    detail = f"the idempotency key {key!r} was used for another request; choose a new one for each"
    return problem(409, "idempotency-conflict", detail)
