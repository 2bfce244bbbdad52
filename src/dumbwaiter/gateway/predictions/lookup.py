"""Finding a kept prediction: by its id, whose signature says that it was given out and to whom, or by its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.blobs.acceptances import find_acceptance
from dumbwaiter.errors import BlobNotFoundError
from dumbwaiter.gateway.http.heads import check_key
from dumbwaiter.gateway.http.problems import ProblemError, problem
from dumbwaiter.gateway.predictions.outputs import Kept, kept_of

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.gateway.access.callers import Access
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.signing import SigningKey


class Known(msgspec.Struct, frozen=True):
    """A prediction that was given out to whoever asks: its *id*, its *model*, and what is shown of it."""

    id: str
    model: str
    tenant: str | None
    kept: Kept


class Lookup:
    """Finds predictions for the callers that *access* lets in. *public_url* is put before their links."""

    def __init__(self, access: Access, signing: SigningKey, store: BlobStore, *, public_url: str | None) -> None:
        self._access = access
        self._signing = signing
        self._store = store
        self._public_url = public_url

    async def by_id(self, exchange: Exchange) -> Known:
        """The prediction that the path names. Raises ProblemError (404) for one that was never given to this caller."""
        await exchange.read_nothing()
        caller = await self._access.admit(exchange.scope)
        id_ = exchange.parameters["id"]
        found = self._signing.read_id(id_, caller.tenant)
        if found is None:
            raise _unknown(id_)
        return Known(id_, found.model, caller.tenant, kept_of(id_, self._public_url))

    async def by_key(self, exchange: Exchange) -> Known:
        """The prediction whose model and idempotency key the path names. Raises ProblemError (404), BlobError."""
        await exchange.read_nothing()
        caller = await self._access.admit(exchange.scope)
        model = exchange.parameters["model"]
        key = check_key(exchange.parameters["key"], "the key in the path")
        try:
            acceptance = await find_acceptance(self._store, caller.tenant, model, key)
        except BlobNotFoundError:
            raise problem(404, "unknown-prediction", "no prediction of this model has this key") from None
        return Known(acceptance.id, model, caller.tenant, kept_of(acceptance.id, self._public_url))


def _unknown(id_: str) -> ProblemError:
    shown: Mapping[str, str] = {"id": id_[:200]}
    return problem(404, "unknown-prediction", "no prediction of yours has this id", members=shown)
