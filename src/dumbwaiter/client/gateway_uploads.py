"""Uploads: the bytes go where the gateway says, which is past the gateway where its store can sign URLs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from typing import TYPE_CHECKING

import httpx
import msgspec

from dumbwaiter.client.gateway_answers import not_a_gateway
from dumbwaiter.client.gateway_connection import CONNECT_WITHIN, QUIET_FOR, may_pass, transport_to
from dumbwaiter.client.uploading import Upload
from dumbwaiter.errors import GatewayError, InputRefusedError, UploadError
from dumbwaiter.policies.repeating import TOO_MANY, pause_before

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dumbwaiter.client.gateway_connection import GatewayConnection
    from dumbwaiter.client.uploading import Source

_decode = msgspec.json.Decoder(Upload).decode


class GatewayUploads:
    """Uploads over *connection*; what breaks off is put again from its beginning, at most *retries* times."""

    def __init__(self, connection: GatewayConnection, *, retries: int) -> None:
        self._connection = connection
        self._retries = retries

    async def upload(self, source: Source) -> Upload:
        """Where *source* lies now. Raises GatewayError, UploadError and BadInputError."""
        response = await self._connection.call("POST", "v1/uploads", patience=None)
        try:
            upload = _decode(response.content)
        except (msgspec.DecodeError, RecursionError):
            raise not_a_gateway(self._connection.shown, response) from None
        if upload.limit is not None and source.nbytes > upload.limit:
            detail = f"{source.nbytes} bytes are more than the {upload.limit} that it takes (gateway.body_limit)"
            raise InputRefusedError(self._connection.shown, detail, code="body-too-large")
        for attempt in itertools.count(1):
            try:
                await self._put(upload, source)
                break
            except (GatewayError, UploadError) as error:
                if attempt > self._retries or not _may_pass(error):
                    raise
                retry_after = error.retry_after if isinstance(error, GatewayError) else None
                pause = pause_before(attempt, retry_after=retry_after, luck=random.random())  # noqa: S311
                await self._connection.guarded(asyncio.sleep(pause))
        return upload

    async def _put(self, upload: Upload, source: Source) -> None:
        async with contextlib.aclosing(source.pieces()) as pieces:
            if upload.path is not None:
                await self._connection.put(upload.path, pieces, source.nbytes)
            else:
                await self._connection.guarded(_put_to_store(upload, pieces, source.nbytes))


async def _put_to_store(upload: Upload, pieces: AsyncIterator[bytes], nbytes: int) -> None:
    """The store gets nothing that is for the gateway, least of all its key."""
    shown = upload.url.partition("?")[0]  # what is behind it is a secret
    headers = {**upload.headers, "content-length": str(nbytes)}
    timeout = httpx.Timeout(CONNECT_WITHIN, read=QUIET_FOR, write=QUIET_FOR)
    try:
        url = httpx.URL(upload.url)
        async with httpx.AsyncClient(transport=transport_to(url), timeout=timeout) as http:
            response = await http.request(upload.method, url, headers=headers, content=pieces)
    except httpx.InvalidURL as error:
        raise UploadError(shown, f"the gateway has given no URL that can be used: {error}", may_pass=False) from None
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise UploadError(shown, f"{reason}; look whether it can be reached from here, and upload again") from error
    if not response.is_success:
        said = " ".join(response.text[:200].split())
        may_pass = response.status_code >= 500 or response.status_code == TOO_MANY
        raise UploadError(shown, said or "nothing", status=response.status_code, may_pass=may_pass)


def _may_pass(error: GatewayError | UploadError) -> bool:
    return error.may_pass if isinstance(error, UploadError) else may_pass(error)
