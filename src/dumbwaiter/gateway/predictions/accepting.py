"""Accepting requests whose answers are kept: under a signed id, once for each idempotency key."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.blobs.acceptances import Acceptance, accept
from dumbwaiter.blobs.claimcheck import check_in, claim_nbytes, drop
from dumbwaiter.errors import BlobError, BlobNotFoundError, ForbiddenUrlError
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

    *brought_body*: the body that *message* claims was stored by this very call. Another one belongs to the request as
    it was accepted first: a worker, or a person who redrives it, may need it still.
    """

    message: Message
    brought_body: bool
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
        try:
            self._check(controls)
            now = time.time()
            id_ = self._signing.new_id(model, request.tenant, now=now)
            # Durably: the request is kept although its caller may go away.
            request = await check_in(self._store, msgspec.structs.replace(request, id=id_), threshold=self._threshold)
            mine = Acceptance(id=id_, digest=digest, created_at=now, data_ref=request.data_ref)
            first = await self._first(request, model, mine)
        except BaseException:
            await self.drop(request)
            raise
        brought = request.data_ref
        if first is not mine:
            request = await self._in_place_of(request, first)
        return self._accepted(
            request,
            model,
            controls,
            is_again=first is not mine,
            brought_body=brought is not None and request.data_ref == brought,
        )

    async def drop(self, request: Message) -> None:
        """Nobody needs the body of *request* that lies in the store. Losing this race costs disk space only."""
        try:
            await drop(self._store, request)
        except BlobError:
            return

    async def drop_brought(self, accepted: Accepted) -> None:
        """*accepted* is not sent: nobody needs the body that came with it, if one did."""
        if accepted.brought_body:
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
        first = await accept(self._store, request.tenant, model, key, mine)
        if first.digest != mine.digest:
            raise _conflict(key)
        return mine if first.id == mine.id else first

    async def _in_place_of(self, request: Message, first: Acceptance) -> Message:
        """*request* as it was accepted first. Its body need not lie in the store twice."""
        if request.data_ref is not None and await self._is_there(first.data_ref):
            await self.drop(request)
            return msgspec.structs.replace(request, id=first.id, data_ref=first.data_ref)
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
        self, request: Message, model: str, controls: Controls, *, is_again: bool, brought_body: bool
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
            deadline=self._deadline(request, kept),
        )
        return Accepted(message=message, brought_body=brought_body, model=model, is_again=is_again, kept=kept)

    def _deadline(self, request: Message, kept: Kept) -> float | None:
        """The request's own, or earlier: when nobody could fetch the answer any more."""
        kept_for = self._options.results_kept_for
        if not kept_for:
            return request.deadline
        return min(request.deadline or math.inf, kept.created_at + kept_for)


def _conflict(key: str) -> ProblemError:
    detail = f"the idempotency key {key!r} was used for another request; choose a new one for each"
    return problem(409, "idempotency-conflict", detail)
