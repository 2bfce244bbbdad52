"""What a person can do with dead letters, with all that belongs to them: kept failures and claimed bodies.

The broker's own verbs move and delete messages only. These read them page by page, for bodies may be large and there
may be a million of them. A dead letter is named by its key, or by its message's id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dumbwaiter.blobs.claimcheck import drop
from dumbwaiter.blobs.results import failure_mark, forget_failure
from dumbwaiter.errors import DeadLetterNotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.brokers.contract import Broker
    from dumbwaiter.message import DeadLetter

PAGE = 100


async def find(broker: Broker, queue: str, names: Sequence[str]) -> list[DeadLetter]:
    """The dead letters of these names, in their order; one that is named twice comes twice.

    A key goes before an equal message id. Raises DeadLetterNotFoundError, which tells all that are missing, and
    QueueNotFoundError.
    """
    wanted = set(names)
    by_key: dict[str, DeadLetter] = {}
    by_id: dict[str, DeadLetter] = {}
    async for page in _pages(broker, queue):
        by_key |= {letter.key: letter for letter in page if letter.key in wanted}
        by_id |= {letter.message.id: letter for letter in page if letter.message.id in wanted}
        if len(by_key) == len(wanted):
            break
    found = by_id | by_key
    missing = [name for name in names if name not in found]
    if missing:
        raise DeadLetterNotFoundError(queue, missing)
    return [found[name] for name in names]


async def redrive(broker: Broker, store: BlobStore, queue: str, names: Sequence[str] | None = None) -> int:
    """Send dead letters back to *queue*: those of these names, or all (None). Returns how many.

    Nothing is done when one of the names is missing: DeadLetterNotFoundError. Raises BlobError when the store fails,
    and what was not sent back by then stays, with its failure. Whoever dies in the middle leaves at most one whose
    failure is gone and which is a dead letter still: redriving again sends that one back too. What somebody else
    redrives or purges meanwhile is theirs, and not counted here. A request that its caller cancelled goes back too, and
    ends as cancelled without being run.
    """
    # Which ones, before any of them goes: what is sent back may die again at once, and would be met again for ever.
    if names is None:
        chosen = [await _choose(store, letter) async for page in _pages(broker, queue) for letter in page]
    else:
        chosen = [await _choose(store, letter) for letter in await find(broker, queue, names)]
    count = 0
    for start in range(0, len(chosen), PAGE):
        count += await _redrive(broker, store, queue, chosen[start : start + PAGE])
    return count


class _Chosen(NamedTuple):
    """A dead letter that shall go back; *mark* of the failure that is kept as its result, None where none is."""

    key: str
    request_id: str
    mark: str | None


async def _choose(store: BlobStore, letter: DeadLetter) -> _Chosen:
    return _Chosen(letter.key, letter.message.id, await failure_mark(store, letter.message.id))


async def _redrive(broker: Broker, store: BlobStore, queue: str, letters: Sequence[_Chosen]) -> int:
    """Send back these, in their order; those of which no failure is kept, together."""
    count, together = 0, list[str]()
    for key, request_id, mark in letters:
        if mark is None:
            together.append(key)
            continue
        count += await broker.redrive(queue, together)
        together.clear()
        # What stands there is another's by now if another has redriven or purged it: its answer must not go.
        if await broker.is_dead_letter(queue, key):
            # A kept result is written once: the failure that stands there would keep out what the next run brings. It
            # goes right before its message: without either the request would look as if it still waited.
            await forget_failure(store, request_id, mark)
            count += await broker.redrive(queue, [key])
    return count + await broker.redrive(queue, together)


async def purge(broker: Broker, store: BlobStore, queue: str, names: Sequence[str] | None = None) -> int:
    """Delete dead letters for good, and the bodies that they had claimed: those of these names, or all (None).

    Returns how many. Nothing is done when one of the names is missing: DeadLetterNotFoundError. Raises BlobError when
    the store fails, and what was not deleted by then stays.
    """
    if names is not None:
        return await _delete(broker, store, queue, await find(broker, queue, names))
    return sum([await _delete(broker, store, queue, page) async for page in _pages(broker, queue)])


async def _delete(broker: Broker, store: BlobStore, queue: str, letters: Sequence[DeadLetter]) -> int:
    # The bodies first: after them the dead letter still says what is left to be done, and doing it twice is no error.
    for letter in letters:
        await drop(store, letter.message)
    return await broker.purge(queue, [letter.key for letter in letters])


async def _pages(broker: Broker, queue: str) -> AsyncIterator[list[DeadLetter]]:
    after = None
    while page := await broker.dead_letters(queue, limit=PAGE, after=after):
        after = page[-1].key
        yield page
