"""Dead letters: a stream, and a hash beside it that says why."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

import msgspec

from dumbwaiter.brokers.redis import scripts
from dumbwaiter.brokers.redis.connection import Pipeline
from dumbwaiter.brokers.redis.keys import QueueKeys, is_dead_key, read_fields
from dumbwaiter.brokers.served import readable_part
from dumbwaiter.envelope import from_attributes
from dumbwaiter.errors import BadInputError, DeadLetterNotFoundError, QueueNotFoundError
from dumbwaiter.message import DeadLetter, Delivery

FIRST_STEP = 8
"""So many are read at first, and twice as many each time: large bodies must not take longer than an answer may."""
LARGEST_STEP = 128
ALL = "*"


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """Why a message died, how often it had been delivered by then, and its id, which its fields may not give."""

    reason: str
    detail: str
    count: int
    id: str

    @classmethod
    def packed(cls, reason: str, detail: str, delivery: Delivery) -> bytes:
        """Why *delivery* is dead-lettered, as JSON; the script puts the digit of its lane before it."""
        return msgspec.json.encode(
            cls(reason=reason, detail=detail, count=delivery.delivery_count, id=delivery.message.id)
        )

    @classmethod
    def unpacked(cls, raw: bytes, key: str) -> Self:
        """What packed() wrote, with the digit of the lane before it; what stands in for it where somebody else did."""
        try:
            return msgspec.json.decode(raw[1:], type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return cls(reason="unrecorded", detail="what is recorded of its end cannot be read", count=0, id=key)


def letter_of(queue: str, key: str, fields: Sequence[bytes], why: bytes) -> DeadLetter:
    """The dead letter under *key*. Also of fields that are no envelope: then what can be read of them."""
    facts = Why.unpacked(why, key)
    attributes, body = read_fields(fields)
    try:
        message = from_attributes(attributes, body, fallback_id=facts.id)
    except BadInputError:
        message = readable_part(attributes, body, facts.id)
    return DeadLetter(
        key=key,
        message=message,
        queue=queue,
        reason=facts.reason,
        detail=facts.detail,
        delivery_count=facts.count,
        dead_at=int(key.partition("-")[0]) / 1000,
    )


class Graveyard:
    """The dead letters of all queues. *run* runs a script of a queue, *keys_of* gives its keys."""

    def __init__(
        self, pipeline: Pipeline, *, run: Callable[..., Awaitable[Any]], keys_of: Callable[[str], QueueKeys]
    ) -> None:
        self._pipeline = pipeline
        self._run = run
        self._keys_of = keys_of

    async def has_queue(self, queue: str) -> bool:
        """Whether *queue* was created."""
        streams = self._keys_of(queue)[:4]
        return int(await self._pipeline.ask("EXISTS", *streams)) == len(streams)

    async def read(self, queue: str, limit: int, after: str | None) -> list[DeadLetter]:
        """As Broker.dead_letters()."""
        if after is not None and not is_dead_key(after):
            raise DeadLetterNotFoundError(queue, [after])
        await self._require(queue)
        keys = self._keys_of(queue)
        letters: list[DeadLetter] = []
        step = FIRST_STEP
        while (wanted := min(step, limit - len(letters))) > 0:
            start = "-" if after is None else f"({after}"
            entries = await self._pipeline.ask("XRANGE", keys.dead, start, "+", "COUNT", wanted)
            whys = await self._pipeline.ask("HMGET", keys.why, *(key for key, _ in entries)) if entries else []
            for (key, fields), why in zip(entries, whys, strict=True):
                after = name = key.decode()
                if why:  # otherwise it was taken away between the two looks
                    letters.append(letter_of(queue, name, fields, why))
            if len(entries) < wanted:
                break
            step = min(2 * step, LARGEST_STEP)
        return letters

    async def has(self, queue: str, key: str) -> bool:
        """As Broker.is_dead_letter()."""
        await self._require(queue)
        return is_dead_key(key) and bool(await self._pipeline.ask("HEXISTS", self._keys_of(queue).why, key))

    async def exhume(self, verb: str, queue: str, keys: Sequence[str] | None) -> int:
        """As Broker.redrive() or purge(), whichever *verb* is."""
        await self._require(queue)
        total, last = 0, ""
        while keys is None:
            count, newest = await self._exhume(verb, queue, ALL, last)
            total, last = total + count, newest.decode()
            if not count:
                return total
        known = [key for key in keys if is_dead_key(key)]
        for start in range(0, len(known), LARGEST_STEP):
            count, _ = await self._exhume(verb, queue, *known[start : start + LARGEST_STEP])
            total += count
        return total

    async def _exhume(self, verb: str, queue: str, *arguments: str) -> tuple[int, bytes]:
        answer = await self._run(scripts.EXHUME, queue, verb, *arguments)
        if answer == -1:
            raise QueueNotFoundError(queue)
        count, last = answer
        return count, last

    async def _require(self, queue: str) -> None:
        if not await self.has_queue(queue):
            raise QueueNotFoundError(queue)
