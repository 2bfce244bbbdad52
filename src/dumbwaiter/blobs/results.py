"""Results of deferred requests: one object per request id, written once. The first writer wins, for good.

A result object is the answer as a CloudEvents JSON object. A big body is an object of its own, written before it,
under a name that no other attempt uses: a late worker cannot change an answer that someone may have read. Only a person
who redrives a dead letter takes its failure away first. A cancellation is never taken away.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.answers import failure_of
from dumbwaiter.blobs.claimcheck import check_out
from dumbwaiter.blobs.events import forget_events
from dumbwaiter.blobs.keys import safe_segment
from dumbwaiter.envelope import from_structured, to_structured
from dumbwaiter.errors import BadInputError, BlobDamagedError, BlobExistsError, BlobNotFoundError
from dumbwaiter.message import PREDICTION_FAILED
from dumbwaiter.prediction import CANCELED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.message import Message

_SCHEME = "blob:"
_BODIES = "result-bodies/"


def result_key(request_id: str) -> str:
    """Where the result of *request_id* lies. Any text is an id; different ids have different keys."""
    return f"results/{safe_segment(request_id)}"


async def save_result(
    store: BlobStore, request_id: str, answer: Message, *, threshold: int, attempt: str | None = None
) -> Message:
    """Write *answer* durably as the result of *request_id*; the result that stands then: *answer*, or the one before.

    The two have different ids, and both come with their bodies: whoever lost tells what the winner said. A body of more
    than *threshold* bytes is kept beside its result. Whoever may save the same answer again, after an error, names the
    *attempt* (any text of its own, the same each time): the body is written over then, not beside its first try.

    Raises BlobError when the store cannot take it, and BlobDamagedError when what stands there cannot be read.
    """
    answer = light = await check_out(store, answer)
    body_key = None
    if len(answer.body) > threshold:
        name = secrets.token_hex(8) if attempt is None else safe_segment(attempt)
        body_key = f"{_bodies_of(request_id)}{name}"
        await store.put(body_key, answer.body)
        light = msgspec.structs.replace(answer, body=b"", data_ref=_SCHEME + body_key)
    try:
        await store.create(result_key(request_id), to_structured(light))
    except BlobExistsError:
        winner = await head_of_result(store, request_id)
        # A create that the network made us repeat finds its own first try: then nothing must be cleaned up.
        if (winner.id, winner.data_ref) != (light.id, light.data_ref):
            if body_key is not None:
                await store.delete(body_key)
            return await _with_body(store, request_id, winner)
    return answer


async def load_result(store: BlobStore, request_id: str) -> Message:
    """The answer to *request_id*, body included.

    Raises BlobNotFoundError while there is none, and BlobDamagedError for one that nobody can read any more.
    """
    return await _with_body(store, request_id, await head_of_result(store, request_id))


async def has_result(store: BlobStore, request_id: str) -> bool:
    """Whether *request_id* has been answered. It raises when the store cannot tell."""
    return await store.exists(result_key(request_id))


async def head_of_result(store: BlobStore, request_id: str) -> Message:
    """load_result() without the body where that is kept beside it: *data_ref* is set then.

    See stream_result_body() and result_body_nbytes(). Raises as load_result() does.
    """
    return _read(request_id, await store.get(result_key(request_id)))


async def result_body_nbytes(store: BlobStore, answer: Message) -> int:
    """The number of bytes of the body of *answer*, which came from head_of_result()."""
    if answer.data_ref is None:
        return len(answer.body)
    try:
        return await store.size(_body_key(answer.data_ref))
    except BlobNotFoundError as error:
        raise _lost(answer.correlation_id, error) from error


async def stream_result_body(store: BlobStore, answer: Message) -> AsyncIterator[bytes]:
    """The body of *answer*, which came from head_of_result(), in chunks. An empty body has none."""
    if answer.data_ref is None:
        if answer.body:
            yield answer.body
        return
    try:
        async for chunk in store.stream(_body_key(answer.data_ref)):
            yield chunk
    except BlobNotFoundError as error:
        raise _lost(answer.correlation_id, error) from error


async def result_body_url(store: BlobStore, answer: Message, *, expires_in: float) -> str | None:
    """A URL by which anybody reads the body of *answer*, which came from head_of_result(), for *expires_in* seconds.

    None where the body is in the answer itself, and where no URL leads into *store*. Raises BlobError.
    """
    if not is_result_body(answer):
        return None
    return await store.sign("GET", _body_key(answer.data_ref or ""), expires_in=expires_in)


def is_result_body(answer: Message) -> bool:
    """Whether the body of *answer* is that of a kept result, which stays there for whoever asks."""
    return answer.data_ref is not None and answer.data_ref.startswith(_SCHEME + _BODIES)


async def with_result_body(store: BlobStore, request_id: str, answer: Message) -> Message:
    """*answer* with its body, where that lies beside the result of *request_id*. Another's body is not given out.

    Raises BadInputError for a reference to such a one, BlobDamagedError when the body is gone, and BlobError.
    """
    if answer.data_ref is not None and not answer.data_ref.startswith(_SCHEME + _bodies_of(request_id)):
        raise BadInputError(f"dataref {answer.data_ref[:200]!r} is not the body of the result of {request_id!r}")
    return await _with_body(store, request_id, answer)


async def failure_mark(store: BlobStore, request_id: str) -> str | None:
    """What forget_failure() would remove, as a text that no other answer to *request_id* has; None for nothing.

    A result that nobody can read any more counts as a failure. An output stays, and a cancellation: the caller's word
    holds, whatever a person does with the request afterwards. Raises BlobError when the store cannot tell.
    """
    try:
        data = await store.get(result_key(request_id))
    except BlobNotFoundError:
        return None
    try:
        stays = await _stays(store, request_id, _read(request_id, data))
    except BlobDamagedError:
        stays = False
    return None if stays else hashlib.sha256(data).hexdigest()


async def forget_failure(store: BlobStore, request_id: str, mark: str) -> None:
    """Remove the failure of *request_id* that had this *mark*, so that another run can write its own. No other answer.

    What was told of its attempts goes too: those of the next run are counted from one again.
    """
    # Of whoever else redrives it, a caller who cancels it, and the run that followed, one may have been here meanwhile.
    if await failure_mark(store, request_id) != mark:
        return
    named = None
    with contextlib.suppress(BlobDamagedError):
        named = (await head_of_result(store, request_id)).data_ref
    # In this order: a result that is there is whole. Of the bodies its own alone: one beside it may be that of the next
    # answer, which a double of the message brings just now. What nobody names is swept when it is old.
    await store.delete(result_key(request_id))
    if named is not None and named.startswith(_SCHEME + _bodies_of(request_id)):
        await store.delete(_body_key(named))
    await forget_events(store, request_id)


async def _stays(store: BlobStore, request_id: str, kept: Message) -> bool:
    """Whether the result *kept* is there for good. Raises BlobDamagedError where it cannot be read."""
    if kept.type != PREDICTION_FAILED:
        await result_body_nbytes(store, kept)
        return True
    try:
        failure = failure_of(await _with_body(store, request_id, kept))
    except msgspec.DecodeError as error:
        raise BlobDamagedError(f"the result of {request_id!r}", f"is damaged: {error}") from error
    return failure is not None and failure.code == CANCELED


def _read(request_id: str, data: bytes) -> Message:
    try:
        return from_structured(data)
    except BadInputError as error:
        raise BlobDamagedError(f"the result of {request_id!r}", f"is damaged: {error}") from error


async def _with_body(store: BlobStore, request_id: str, answer: Message) -> Message:
    if answer.data_ref is None:
        return answer
    try:
        body = await store.get(_body_key(answer.data_ref))
    except BlobNotFoundError as error:
        # Not "pending": asking again would wait for ever.
        raise _lost(request_id, error) from error
    return msgspec.structs.replace(answer, body=body, data_ref=None)


def _lost(request_id: str | None, error: BlobNotFoundError) -> BlobDamagedError:
    return BlobDamagedError(f"the result of {request_id!r}", f"has lost its body: {error}")


def _bodies_of(request_id: str) -> str:
    return f"{_BODIES}{safe_segment(request_id)}/"


def _body_key(data_ref: str) -> str:
    return data_ref.removeprefix(_SCHEME)
