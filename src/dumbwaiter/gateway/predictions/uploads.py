"""Taking in what a request brings: in memory where it is small, through the blob store where it is not."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from dumbwaiter.blobs.claimcheck import check_in_stream, drop
from dumbwaiter.errors import BlobError
from dumbwaiter.gateway.http.bodies import LIMIT_SETTING, body_chunks, read_body
from dumbwaiter.gateway.http.multipart import Form, is_form
from dumbwaiter.gateway.http.problems import ProblemError
from dumbwaiter.gateway.http.sending import STALLED_AFTER
from dumbwaiter.gateway.predictions.forms import FormReader
from dumbwaiter.gateway.predictions.inputs import Input, check_type, empty, is_json, read_input
from dumbwaiter.gateway.signatures import Signatures
from dumbwaiter.message import Message, new_id

if TYPE_CHECKING:
    from starlette.types import Receive

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.gateway.http.budget import Hold
    from dumbwaiter.gateway.http.heads import Head

MOST_JSON = 32 * 1024 * 1024
"""JSON and the fields of a form are held in memory, and so are never larger than this."""
UPLOAD_NBYTES = 1024 * 1024
"""What an upload has in memory on its way through, whatever its size."""

READ_ASIDE_NBYTES = 1024 * 1024
"""A larger JSON body is looked into by a thread: a data URL full of escapes takes seconds, and others are served
meanwhile.
"""


class Uploads:
    """Reads what requests bring. Bodies above *threshold* bytes that need not be looked into stream into *store*."""

    def __init__(self, store: BlobStore, *, threshold: int, limit: int) -> None:
        self._store = store
        self._threshold = threshold
        self._limit = limit
        self._memory_limit = min(limit, MOST_JSON)
        self._signatures = Signatures(store)

    def read(
        self, head: Head, receive: Receive, hold: Hold, *, model: str, durable: bool, digest: bool
    ) -> Awaitable[Input]:
        """The input that the request of *head* to *model* brings; what it takes of memory is taken through *hold*.

        A *durable* upload survives a power cut. With *digest* the Input has one. Raises ProblemError, BlobError, and
        CallerGoneError when the caller hangs up; nothing is left in the store then.
        """
        if is_json(head.content_type):
            return self._whole(head, receive, hold, limit=self._memory_limit, digest=digest)
        if head.content_type is not None and is_form(head.content_type):
            return self._form(head, head.content_type, receive, hold, model)
        if head.declared is not None and head.declared <= self._threshold:
            return self._whole(head, receive, hold, limit=self._limit, digest=digest)
        content_type = check_type(head.content_type)
        chunks = counted(body_chunks(receive, declared=head.declared, limit=self._limit), hold, declared=head.declared)
        return self._stream(content_type, chunks, _hash_of(head.content_type), durable=durable)

    async def drop(self, input_: Input) -> None:
        """Nobody needs what was streamed for *input_*. Losing this race costs disk space only."""
        if input_.data_ref is not None:
            with contextlib.suppress(BlobError):
                await drop(self._store, Message(data_ref=input_.data_ref))

    async def _whole(self, head: Head, receive: Receive, hold: Hold, *, limit: int, digest: bool) -> Input:
        setting = LIMIT_SETTING if limit == self._limit else None
        body = await read_body(receive, declared=head.declared, limit=limit, hold=hold, setting=setting)
        if len(body) > READ_ASIDE_NBYTES and is_json(head.content_type):
            given = await asyncio.to_thread(read_input, head.content_type, body)
        else:
            given = read_input(head.content_type, body)
        if not digest:
            return given
        whole = _hash_of(head.content_type)
        whole.update(body)
        return msgspec.structs.replace(given, digest=whole.hexdigest())

    async def _stream(
        self, content_type: str | None, chunks: AsyncIterator[bytes], digest: hashlib._Hash, *, durable: bool
    ) -> Input:
        begun, rest = await read_ahead(chunks, self._threshold)
        if len(begun) <= self._threshold:
            if not begun:
                raise empty()
            digest.update(begun)
            return Input(content_type=content_type, body=begun, digest=digest.hexdigest())
        hashed = _hashed(begun, rest, digest)
        data_ref = await self._check_in(hashed, durable=durable)
        return Input(content_type=content_type, data_ref=data_ref, digest=digest.hexdigest())

    async def _form(self, head: Head, content_type: str, receive: Receive, hold: Hold, model: str) -> Input:
        chunks = body_chunks(receive, declared=head.declared, limit=self._limit)

        async def describe() -> Mapping[str, Any]:
            return await self._describe(model)

        reader = FormReader(hold, limit=self._memory_limit, upload=UPLOAD_NBYTES, describe=describe)

        async def stream(data: AsyncIterator[bytes]) -> str:
            # A field that comes later may say that the request is to be kept.
            return await self._check_in(data, durable=True)

        try:
            return await reader.read(Form(content_type, chunks), threshold=self._threshold, stream=stream)
        except BaseException:
            await self.drop(Input(content_type=None, data_ref=reader.data_ref))
            raise

    async def _describe(self, model: str) -> Mapping[str, Any]:
        """The signature of *model*; empty while no worker of it has ever been ready, for it may still come."""
        try:
            return await self._signatures.signature_of(model)
        except ProblemError:
            return {}

    async def _check_in(self, chunks: AsyncIterator[bytes], *, durable: bool) -> str:
        """Stream *chunks* into the store; the data_ref. Raises BlobError also for a store that hangs."""
        try:
            # The caller's time is bounded elsewhere; the store's is bounded here.
            async with asyncio.timeout(STALLED_AFTER) as limit:
                timed = _timed(chunks, limit)
                return (await check_in_stream(self._store, new_id(), timed, durable=durable))[0]
        except TimeoutError:
            raise BlobError(f"the blob store took nothing for {STALLED_AFTER:g} s") from None


async def read_ahead(chunks: AsyncIterator[bytes], nbytes: int) -> tuple[bytes, AsyncIterator[bytes]]:
    """What comes first of *chunks*, until it is more than *nbytes* or all of it, and the rest."""
    begun = bytearray()
    async for chunk in chunks:
        begun += chunk
        if len(begun) > nbytes:
            break
    return bytes(begun), chunks


async def counted(chunks: AsyncIterator[bytes], hold: Hold, *, declared: int | None) -> AsyncIterator[bytes]:
    """*chunks* of an upload, taken through *hold* as they come, up to what one has in memory on its way through.

    Not before: whoever announces an upload and sends nothing must not keep others from theirs.
    """
    most = min(UPLOAD_NBYTES, declared or UPLOAD_NBYTES)
    hold.check(most)
    nbytes = 0
    async for chunk in chunks:
        if nbytes < most:
            nbytes = min(nbytes + len(chunk), most)
            hold.ensure(nbytes)
        yield chunk


def _hash_of(content_type: str | None) -> hashlib._Hash:
    digest = hashlib.sha256((content_type or "").encode("latin-1", "replace"))
    digest.update(b"\0")
    return digest


async def _timed(chunks: AsyncIterator[bytes], limit: asyncio.Timeout) -> AsyncIterator[bytes]:
    """*chunks*, where the time of *limit* runs only while the one who asked for them is busy with one."""
    clock = asyncio.get_running_loop().time
    limit.reschedule(None)
    async for chunk in chunks:
        limit.reschedule(clock() + STALLED_AFTER)
        yield chunk
        limit.reschedule(None)
    limit.reschedule(clock() + STALLED_AFTER)


async def _hashed(begun: bytes, rest: AsyncIterator[bytes], digest: hashlib._Hash) -> AsyncIterator[bytes]:
    digest.update(begun)
    yield begun
    async for chunk in rest:
        digest.update(chunk)
        yield chunk
