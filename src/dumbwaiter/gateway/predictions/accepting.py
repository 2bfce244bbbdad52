"""Accepting requests whose answers are kept: under a signed id, once for each idempotency key."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.blobs.acceptances import Acceptance, accept
from dumbwaiter.blobs.claimcheck import check_in, claim_nbytes, drop
from dumbwaiter.errors import BlobError, BlobNotFoundError, ForbiddenUrlError
from dumbwaiter.gateway.http.problems import ProblemError, problem
from dumbwaiter.gateway.predictions.outputs import Kept
from dumbwaiter.message import KEEP, WEBHOOK, WEBHOOK_EVENTS, Message
from dumbwaiter.prediction import links_of
from dumbwaiter.signing import created_at

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.config import GatewaySettings
    from dumbwaiter.gateway.predictions.inputs import Controls
    from dumbwaiter.outbound import AddressPolicy
    from dumbwaiter.signing import SigningKey


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was accepted: the *message* to send, again if it *is_again*, and what is shown of it."""

    message: Message
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
        if first is not mine:
            request = await self._in_place_of(request, first)
        return self._accepted(request, model, controls, is_again=first is not mine)

    def kept(self, id_: str) -> Kept:
        """What is shown of the kept prediction *id_*: the same in every process."""
        return Kept(created_at(id_) or 0.0, links_of(id_, self._options.public_url))

    async def drop(self, request: Message) -> None:
        """Nobody needs the body of *request* that lies in the store. Losing this race costs disk space only."""
        try:
            await drop(self._store, request)
        except BlobError:
            return

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

    def _accepted(self, request: Message, model: str, controls: Controls, *, is_again: bool) -> Accepted:
        kept = self.kept(request.id)
        extensions = {KEEP: "true"}
        if controls.webhook is not None:
            extensions[WEBHOOK] = controls.webhook
            if controls.webhook_events is not None:
                extensions[WEBHOOK_EVENTS] = ",".join(controls.webhook_events)
        deadline = request.deadline
        if deadline is None and self._options.results_kept_for:
            # Nobody could fetch it any more.
            deadline = kept.created_at + self._options.results_kept_for
        message = msgspec.structs.replace(
            request, correlation_id=request.id, extensions=extensions, time=kept.created_at, deadline=deadline
        )
        return Accepted(message=message, model=model, is_again=is_again, kept=kept)


def _conflict(key: str) -> ProblemError:
    detail = f"the idempotency key {key!r} was used for another request; choose a new one for each"
    return problem(409, "idempotency-conflict", detail)
