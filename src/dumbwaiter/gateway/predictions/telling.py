"""Answering with what the store has: large answers a few at a time, beside the event loop, and counted while here.

An answer of a mebibyte takes milliseconds to read and write, in which nobody is served, and several times its size.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dumbwaiter.blobs.results import result_body_nbytes, with_result_body
from dumbwaiter.errors import BlobError
from dumbwaiter.gateway.http.budget import SMALL
from dumbwaiter.gateway.http.sending import STALLED_AFTER
from dumbwaiter.prediction import INLINE_NBYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.gateway.http.budget import Budget, Hold
    from dumbwaiter.gateway.http.endpoint import Exchange
    from dumbwaiter.gateway.http.problems import Headers
    from dumbwaiter.message import Message

    Write = Callable[[Message], tuple[Headers, bytes]]

AT_ONCE = 8
"""So many large answers are read or written at once; the others wait, and take nothing yet."""
COPIES = 6
"""So often is a large answer in memory while it is written: as it is, as base64, and as several layers of JSON."""


class Telling:
    """Responses with the answers of kept predictions; large bodies lie in *store*, and what is here is of *budget*."""

    def __init__(self, store: BlobStore, budget: Budget) -> None:
        self._store = store
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._writing = asyncio.Lock()  # threads share one interpreter: more of them would be no faster
        self.hold = budget.hold

    async def respond(self, exchange: Exchange, id_: str, answer: Message, write: Write, more: Headers) -> None:
        """200 with what written() gives, and *more* headers. Raises as that does."""
        with self.hold() as hold:
            headers, body = await self.written(hold, id_, answer, write)
            await exchange.respond(200, [*headers, *more], body)

    async def written(self, hold: Hold, id_: str, answer: Message, write: Write) -> tuple[Headers, bytes]:
        """What *write* makes of *answer* to *id_*, with its body if that may stand in a prediction object. *hold* has
        taken what is returned.

        Raises ProblemError (503) when there is no room for it, BlobError.
        """
        nbytes = len(answer.body)
        is_elsewhere = answer.data_ref is not None
        if is_elsewhere:
            in_store = await result_body_nbytes(self._store, answer)
            is_elsewhere = in_store <= INLINE_NBYTES  # otherwise it stays there
            nbytes = in_store if is_elsewhere else 0
        if nbytes <= SMALL and not is_elsewhere:
            headers, body = write(answer)
            hold.ensure(len(body))
            return headers, body
        async with self._turns:
            hold.take(COPIES * nbytes)
            if is_elsewhere:
                answer = await self._whole(id_, answer)
            async with self._writing:
                headers, body = await asyncio.to_thread(write, answer)
        hold.keep(len(body))
        return headers, body

    async def _whole(self, id_: str, answer: Message) -> Message:
        try:
            async with asyncio.timeout(STALLED_AFTER):
                return await with_result_body(self._store, id_, answer)
        except TimeoutError:
            raise BlobError(f"the result of {id_!r} could not be read within {STALLED_AFTER:g} s") from None
