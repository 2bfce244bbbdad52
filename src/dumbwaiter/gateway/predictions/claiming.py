"""Uploads that requests with an idempotency key name: the same request names the same bytes.

The bytes do not pass the gateway, so what goes into the request's digest is which writing of the upload was named: one
that was written over is another body. Whoever comes again later than an upload can be named gets its answer all the
same, for the body was claimed when the request was accepted.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.blobs.acceptances import find_acceptance
from dumbwaiter.blobs.claimcheck import upload_key
from dumbwaiter.errors import BlobNotFoundError
from dumbwaiter.gateway.http.problems import ProblemError, problem

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.gateway.predictions.inputs import Input
    from dumbwaiter.gateway.predictions.presigned import PresignedUploads
    from dumbwaiter.gateway.predictions.uploads import Uploads

_BETWEEN = ":"


class UploadClaims:
    """Claims uploads for requests, with or without a key."""

    def __init__(self, store: BlobStore, presigned: PresignedUploads, uploads: Uploads) -> None:
        self._store = store
        self._presigned = presigned
        self._uploads = uploads

    async def claim(self, given: Input, tenant: str | None, *, model: str, key: str | None) -> Input:
        """*given*, which names an upload of *tenant*, with a claim to its bytes instead; without any body where this
        was accepted before and the upload can be named no more.

        Raises as PresignedUploads.claim() does, and ProblemError (409) for an upload that is being written over.
        """
        if key is None:
            return await self._presigned.claim(given, tenant)
        try:
            version = await self._version(given)
            claimed = await self._presigned.claim(given, tenant)
        except ProblemError as error:
            if error.problem.status != 404:
                raise
            return await self._recalled(given, tenant, model, key, error)
        if await self._version(given) != version:
            await self._uploads.drop(claimed)
            raise problem(409, "idempotency-conflict", "the upload is being written over; ask again when it is whole")
        return msgspec.structs.replace(claimed, digest=given.digest + _BETWEEN + version)

    async def _version(self, given: Input) -> str:
        try:
            version = await self._store.version(upload_key(given.upload or ""))
        except BlobNotFoundError:
            return ""  # whoever claims it will say so, and knows whose it is
        return hashlib.sha256(version.encode()).hexdigest()

    async def _recalled(self, given: Input, tenant: str | None, model: str, key: str, error: ProblemError) -> Input:
        try:
            acceptance = await find_acceptance(self._store, tenant, model, key)
        except BlobNotFoundError:
            raise error from None
        if acceptance.digest.partition(_BETWEEN)[0] != given.digest:
            raise error
        return msgspec.structs.replace(given, upload=None, digest=acceptance.digest)
