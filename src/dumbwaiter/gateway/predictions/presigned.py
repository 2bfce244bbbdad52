"""Uploads apart from predictions, so that big inputs go into the store without passing the gateway.

``POST /v1/uploads`` gives a URL to put the bytes to: the store's own, presigned, or one of this gateway where the store
has none (a folder, memory). A prediction names the upload as its input, ``{"input": {"$upload": ID}}``, and the gateway
then has the store copy it to where its uploader, whose URL may still be good, can change it no more.

An id is signed for one tenant and says when it was made: it names one key of ours, and nothing else in the store.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from dumbwaiter.blobs.claimcheck import check_in_upload, claim_nbytes, upload_key
from dumbwaiter.envelope import format_time
from dumbwaiter.errors import BlobNotFoundError, DumbwaiterError
from dumbwaiter.gateway.http.bodies import LIMIT_SETTING, body_chunks, too_large
from dumbwaiter.gateway.http.heads import read_head
from dumbwaiter.gateway.http.problems import ProblemError, problem
from dumbwaiter.gateway.http.sending import json_headers
from dumbwaiter.gateway.predictions.inputs import Input, empty
from dumbwaiter.gateway.predictions.uploads import Uploads, counted

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.gateway.access.callers import Access
    from dumbwaiter.gateway.http.budget import Budget
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.signing import SigningKey

PUT_WITHIN = 900.0
"""Seconds after its making in which an upload may begin."""
NAMED_WITHIN = 3600.0
"""Seconds after its making in which a prediction may name it."""


class PresignedUploads:
    """Makes uploads into *store* of at most *limit* bytes, takes those that have no other way, and claims them."""

    def __init__(
        self,
        store: BlobStore,
        signing: SigningKey,
        *,
        access: Access,
        budget: Budget,
        uploads: Uploads,
        limit: int,
        public_url: str | None,
    ) -> None:
        self._store = store
        self._signing = signing
        self._access = access
        self._budget = budget
        self._uploads = uploads
        self._limit = limit
        self._root = (public_url or "").rstrip("/")

    async def create(self, exchange: Exchange) -> None:
        """``POST /v1/uploads``: where to put the bytes, how, until when, and what to send as the input then."""
        await exchange.read_nothing()
        caller = await self._access.admit(exchange.scope)
        now = time.time()
        id_ = self._signing.new_upload_id(caller.tenant, now=now)
        url = await self._store.sign("PUT", upload_key(id_), expires_in=PUT_WITHIN)
        body = msgspec.json.encode(self._described(id_, url, now + PUT_WITHIN)) + b"\n"
        await exchange.respond(201, [*json_headers(body), (b"cache-control", b"no-store")], body)

    async def receive(self, exchange: Exchange) -> None:
        """``PUT /v1/uploads/{id}``: the bytes of an upload. They replace those that came before."""
        caller = await self._access.admit(exchange.scope)
        id_ = exchange.parameters["id"]
        self._check(id_, caller.tenant, within=PUT_WITHIN)
        head = read_head(exchange.scope)
        with self._budget.hold() as hold:
            chunks = body_chunks(exchange.receive, declared=head.declared, limit=self._limit)
            await self._store.put_stream(upload_key(id_), counted(chunks, hold, declared=head.declared))
        exchange.body_was_read = True
        await exchange.respond(204, [], b"")

    async def claim(self, given: Input, tenant: str | None) -> Input:
        """*given*, which names an upload of *tenant*, with a claim to its bytes instead.

        Raises ProblemError: 404 for an upload that is not the tenant's, expired or is yet to come, 413 for one that is
        too large, 400 for an empty one; BlobError.
        """
        id_ = given.upload or ""
        self._check(id_, tenant, within=NAMED_WITHIN)
        try:
            # Before it is copied, and after: its URL may still be good, and lead to something larger by now.
            if await self._store.size(upload_key(id_)) > self._limit:
                await self._store.delete(upload_key(id_))
                raise too_large("the upload", self._limit, LIMIT_SETTING)
            data_ref = await check_in_upload(self._store, id_)
        except BlobNotFoundError:
            detail = f"nothing was put to the upload {id_} yet; put the bytes to its url first"
            raise problem(404, "no-upload-yet", detail) from None
        claimed = msgspec.structs.replace(given, upload=None, data_ref=data_ref)
        try:
            nbytes = await claim_nbytes(self._store, data_ref)
            if not nbytes or nbytes > self._limit:
                raise too_large("the upload", self._limit, LIMIT_SETTING) if nbytes else empty()
        except DumbwaiterError:
            await self._uploads.drop(claimed)
            raise
        return claimed

    def _check(self, id_: str, tenant: str | None, *, within: float) -> None:
        created_at = self._signing.read_upload_id(id_, tenant)
        if created_at is None or time.time() > created_at + within:
            raise _unknown()

    def _described(self, id_: str, url: str | None, expires_at: float) -> dict[str, Any]:
        # Azure alone must be told what kind of blob it is to become.
        is_azure = url is not None and self._store.url.startswith("az:")
        return {
            "id": id_,
            "url": url or f"{self._root}/v1/uploads/{id_}",
            "method": "PUT",
            "headers": {"x-ms-blob-type": "BlockBlob"} if is_azure else {},
            "expires_at": format_time(expires_at),
            "limit": self._limit,
            "input": {"$upload": id_},
        }


def _unknown() -> ProblemError:
    detail = "there is no such upload of yours, or its time is over; POST /v1/uploads gives a new one"
    return problem(404, "unknown-upload", detail)
