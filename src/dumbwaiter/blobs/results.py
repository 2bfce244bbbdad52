"""Results of deferred requests: one object per request id, written once. The first writer wins, for good.

A result object is the answer as a CloudEvents JSON object. A big body is an object of its own, written before it,
under a name that no other attempt uses: a late worker cannot change an answer that someone may have read. Only a person
who redrives a dead letter takes its failure away first.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.blobs.claimcheck import check_out
from dumbwaiter.blobs.keys import safe_segment
from dumbwaiter.envelope import from_structured, to_structured
from dumbwaiter.errors import BadInputError, BlobError, BlobExistsError, BlobNotFoundError
from dumbwaiter.message import PREDICTION_FAILED

if TYPE_CHECKING:
    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.message import Message

_SCHEME = "blob:"
_BODIES = "result-bodies/"


def result_key(request_id: str) -> str:
    """Where the result of *request_id* lies. Any text is an id; different ids have different keys."""
    return f"results/{safe_segment(request_id)}"


async def save_result(store: BlobStore, request_id: str, answer: Message, *, threshold: int) -> bool:
    """Write *answer* durably as the result of *request_id*; False when another answer was first.

    A body of more than *threshold* bytes is kept beside it. Raises BlobError when the store cannot take it.
    """
    answer = await check_out(store, answer)
    body_key = None
    if len(answer.body) > threshold:
        body_key = f"{_BODIES}{safe_segment(request_id)}/{secrets.token_hex(8)}"
        await store.put(body_key, answer.body)
        answer = msgspec.structs.replace(answer, body=b"", data_ref=_SCHEME + body_key)
    try:
        await store.create(result_key(request_id), to_structured(answer))
    except BlobExistsError:
        return await _was_ours(store, request_id, answer, body_key)
    return True


async def load_result(store: BlobStore, request_id: str) -> Message:
    """The answer to *request_id*, body included. Raises BlobNotFoundError while there is none."""
    answer = await _read(store, request_id)
    if answer.data_ref is None:
        return answer
    try:
        body = await store.get(answer.data_ref.removeprefix(_SCHEME))
    except BlobNotFoundError as error:
        # Not "pending": asking again would wait for ever.
        raise BlobError(f"the result of {request_id!r} has lost its body: {error}") from error
    return msgspec.structs.replace(answer, body=body, data_ref=None)


async def forget_failure(store: BlobStore, request_id: str) -> None:
    """Remove the failure that is the result of *request_id*, so that another run can write its own. Outputs stay."""
    try:
        kept = await _read(store, request_id)
    except BlobNotFoundError:
        return
    if kept.type != PREDICTION_FAILED:
        return
    await store.delete(result_key(request_id))
    if kept.data_ref is not None:
        await store.delete(kept.data_ref.removeprefix(_SCHEME))


async def _was_ours(store: BlobStore, request_id: str, answer: Message, body_key: str | None) -> bool:
    # A create that the network made us repeat finds its own first try: then nothing must be cleaned up.
    winner = await _read(store, request_id)
    if winner.id == answer.id and winner.data_ref == answer.data_ref:
        return True
    if body_key is not None:
        await store.delete(body_key)
    return False


async def _read(store: BlobStore, request_id: str) -> Message:
    data = await store.get(result_key(request_id))
    try:
        return from_structured(data)
    except BadInputError as error:
        raise BlobError(f"the result of {request_id!r} is damaged: {error}") from error
