"""Dead letters: a stream of their own for each queue. Their key is the sequence there."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

from dumbwaiter.brokers.nats.answers import NO_RESPONDERS, Question, status_of
from dumbwaiter.brokers.nats.headers import (
    COUNT,
    DETAIL,
    MSG_ID,
    REASON,
    TOKEN,
    attributes_of,
    encode,
    headers_nbytes,
    number,
    parse_stamp,
)
from dumbwaiter.brokers.nats.layout import MSG_SIZE_ROOM
from dumbwaiter.brokers.served import readable_part
from dumbwaiter.envelope import from_attributes
from dumbwaiter.errors import BadInputError, DeadLetterNotFoundError, MessageTooLargeError
from dumbwaiter.message import DeadLetter, Message

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from dumbwaiter.brokers.nats.layout import Names
    from dumbwaiter.brokers.nats.link import Link
    from dumbwaiter.brokers.nats.queues import Queues

_PAGE = 100
_PAGE_NBYTES = 16 * 1024 * 1024
_AT_ONCE = 16  # letters whose bodies are read in one go: the server cuts off whoever has more than 64 MiB to read
_LONGEST_KEY = 19
_GONE = (10037, 10043, 10057)  # no message found; unknown sequence; that of an empty store


class _Found(msgspec.Struct, frozen=True, gc=False):
    """A dead *letter*, and the *token* that was written with it; empty if somebody else wrote it."""

    letter: DeadLetter
    token: str


class DeadLetters:
    """The dead letters of all queues."""

    def __init__(self, link: Link, queues: Queues) -> None:
        self._link = link
        self._queues = queues
        self._key = secrets.token_bytes(32)

    async def page(self, queue: str, limit: int, after: str | None) -> list[DeadLetter]:
        """The oldest *limit* behind the key *after*."""
        return [one.letter for one in await self._page(queue, limit, after)]

    async def _page(self, queue: str, limit: int, after: str | None) -> list[_Found]:
        first = 1 if after is None else _sequence(queue, after) + 1
        found: list[_Found] = []
        while len(found) < limit:
            some, is_end = await self._some(queue, first, limit - len(found))
            found += some
            if is_end or not some:
                break
            first = int(some[-1].letter.key) + 1
        return found

    async def has(self, queue: str, key: str) -> bool:
        """Whether *key* is there still."""
        return bool(await self._some_of(queue, _sequences([key])))

    async def redrive(self, queue: str, keys: Sequence[str] | None) -> int:
        """Publish them again, then delete them: an end between the two doubles none, for the id stays the same.

        Raises MessageTooLargeError for one that no longer fits, once the others are done.
        """
        names = self._queues.names(queue)
        count, over = 0, 0
        async for found in self._all(queue) if keys is None else self._of(queue, keys):
            done, largest = await self._redrive(names, found)
            count += done
            over = max(over, largest)
        if over:  # it had no header at all, and its body leaves no room for one
            raise MessageTooLargeError(over, self._queues.max_payload - MSG_SIZE_ROOM)
        return count

    async def purge(self, queue: str, keys: Sequence[str] | None) -> int:
        """Delete them for good."""
        names = self._queues.names(queue)
        if keys is None:
            answer = await self._link.json(f"STREAM.PURGE.{names.dead_stream}")
            self._queues.check(answer, queue)
            return int(answer["purged"])
        return await self._delete(names, [str(sequence) for sequence in _sequences(keys)])

    async def _all(self, queue: str) -> AsyncIterator[list[_Found]]:
        after = None
        while found := await self._page(queue, _AT_ONCE, after):
            after = found[-1].letter.key
            yield found

    async def _of(self, queue: str, keys: Sequence[str]) -> AsyncIterator[list[_Found]]:
        sequences = _sequences(keys)
        for start in range(0, max(1, len(sequences)), _AT_ONCE):
            yield await self._some_of(queue, sequences[start : start + _AT_ONCE])

    async def _redrive(self, names: Names, found: list[_Found]) -> tuple[int, int]:
        """How many were redriven, and the size of the largest that no longer fits, 0 if all do."""
        questions: dict[str, Question] = {}
        limit, over = self._queues.max_payload - MSG_SIZE_ROOM, 0
        for letter, token in ((one.letter, one.token) for one in found):
            headers, payload = encode(letter.message)
            headers[MSG_ID] = f"%redrive:{token or self._token(names, letter)}"  # no id of a producer's begins so
            nbytes = headers_nbytes(headers) + len(payload)
            if nbytes > limit:
                over = max(over, nbytes)
                continue
            questions[letter.key] = (names.subject_of(letter.message.priority), payload, headers)
        if questions:
            await self._queues.publish(names.queue, list(questions.values()))
        return await self._delete(names, list(questions)), over

    def _token(self, names: Names, letter: DeadLetter) -> str:
        """For a letter that brought none: the same as long as this object lives."""
        named = f"{names.dead_stream} {letter.key} {letter.dead_at}"
        return hashlib.blake2b(named.encode(), key=self._key, digest_size=16).hexdigest()

    async def _delete(self, names: Names, keys: Sequence[str]) -> int:
        """How many were deleted; the others were gone."""
        if not keys:
            if not await self._queues.has(names.queue):
                raise await self._queues.missing(names.queue)
            return 0
        subject = f"STREAM.MSG.DELETE.{names.dead_stream}"
        answers = await self._link.ask([self._link.api(subject, {"seq": int(key), "no_erase": True}) for key in keys])
        contents = [self._link.read(answer) for answer in answers]
        for content in contents:
            if content.get("error", {}).get("err_code") not in _GONE:
                self._queues.check(content, names.queue)
        return sum(bool(content.get("success")) for content in contents)

    async def _some(self, queue: str, first: int, limit: int) -> tuple[list[_Found], bool]:
        """Some from the sequence *first* on, at most *limit*, and whether there are no more."""
        names = self._queues.names(queue)
        request = {
            "seq": first,
            "next_by_subj": names.dead_subject,
            "batch": min(limit, _PAGE),
            "max_bytes": _PAGE_NBYTES,
        }

        def is_last(messages: list[Msg]) -> bool:
            return _status(messages[-1]) is not None

        messages = await self._link.ask_for_several(self._question(names, request), is_last)
        status = messages.pop()
        if _status(status) == NO_RESPONDERS:
            raise await self._queues.missing(queue)
        found = [_found(names, message) for message in messages]
        return found, _status(status) == "404" or (status.headers or {}).get("Nats-Num-Pending") == "0"

    async def _some_of(self, queue: str, sequences: list[int]) -> list[_Found]:
        """Those of *sequences* that are there."""
        names = self._queues.names(queue)
        if not sequences:
            if not await self._queues.has(queue):
                raise await self._queues.missing(queue)
            return []
        answers = await self._link.ask([self._question(names, {"seq": sequence}) for sequence in sequences])
        if any(_status(answer) == NO_RESPONDERS for answer in answers):
            raise await self._queues.missing(queue)
        return [_found(names, answer) for answer in answers if _status(answer) is None]

    def _question(self, names: Names, request: object) -> Question:
        return self._link.api(f"DIRECT.GET.{names.dead_stream}", request)


def _status(message: Msg) -> str | None:
    # What was asked for is known by its sequence: a producer may have written a header named Status.
    return None if (message.headers or {}).get("Nats-Sequence") else status_of(message)


def _found(names: Names, message: Msg) -> _Found:
    return _Found(_letter(names, message), (message.headers or {}).get(TOKEN, ""))


def _letter(names: Names, message: Msg) -> DeadLetter:
    headers = message.headers or {}
    attributes = attributes_of(headers)
    try:
        buried = from_attributes(attributes, message.data, fallback_id=headers["Nats-Sequence"])
    except BadInputError:  # no adapter of ours wrote it
        buried = _unreadable(attributes, message)
    return DeadLetter(
        key=headers["Nats-Sequence"],
        message=buried,
        queue=names.queue,
        reason=unquote(headers.get(REASON, "")),
        detail=unquote(headers.get(DETAIL, "")),
        delivery_count=number(headers, COUNT),
        dead_at=parse_stamp(headers["Nats-Time-Stamp"]),
    )


def _unreadable(attributes: dict[str, str], message: Msg) -> Message:
    return readable_part(attributes, message.data, (message.headers or {})["Nats-Sequence"])


def _sequences(keys: Sequence[str]) -> list[int]:
    return sorted({int(key) for key in keys if _is_key(key)})


def _is_key(key: str) -> bool:
    return key.isascii() and key.isdecimal() and len(key) <= _LONGEST_KEY


def _sequence(queue: str, key: str) -> int:
    if not _is_key(key):
        raise DeadLetterNotFoundError(queue, [key])
    return int(key)
