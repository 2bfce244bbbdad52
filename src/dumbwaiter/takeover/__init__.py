"""A consumer that is killed costs its messages no lock's length where another takes its place on the same machine.

Each consumer has a slot in a folder, and writes down there what it holds. The kernel frees the slot of one that dies,
and whoever starts next hands back what it held.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from dumbwaiter.boot import this_boot
from dumbwaiter.brokers.contract import Broker, Claim
from dumbwaiter.errors import BrokerError
from dumbwaiter.takeover.journal import LARGEST_NBYTES, Journal, JournalUnreadableError, read
from dumbwaiter.takeover.recording import Recorder, RecordingBroker, boot_clock_ahead
from dumbwaiter.takeover.slots import Slot, take_free
from dumbwaiter.urls import without_user

__all__ = ["taking_over"]

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def taking_over(broker: Broker, slots: Path, queue: str) -> AsyncIterator[Broker]:
    """*broker*, which is open, for one consumer of *queue*; what dead ones of this machine held is handed back first.

    Their slots lie below the folder *slots*. What is held through the broker that this gives is written down, so that
    the next consumer can do the same for this one. Where the product needs none of that, or the folder cannot be used,
    it is *broker* itself.
    """
    if broker.capabilities.killed_holder != "taken_back" or not broker.capabilities.multi_process:
        yield broker
        return
    try:
        boot = this_boot()
        own, *others = take_free(_folder(slots, broker.url, queue))
    except OSError as error:
        _log.warning(
            "cannot use %s, so the messages of a worker that is killed wait for their locks to end; "
            "set slots to a folder of this machine's that can be written: %s",
            *(slots, error),
        )
        yield broker
        return
    recorder = Recorder(own, Journal(boot, own.file))
    try:
        try:
            await _hand_back(broker, [own, *others], boot)
        finally:
            for slot in others:
                slot.close()
        yield RecordingBroker(broker, recorder)
    finally:
        # What is held still the broker hands back itself, as it is closed.
        recorder.close()


def _folder(slots: Path, url: str, queue: str) -> Path:
    """Where the consumers of *queue* at *url* have their slots."""
    place = hashlib.sha256(without_user(url).encode(errors="surrogateescape")).hexdigest()
    return slots / f"{queue}-{place[:16]}"


async def _hand_back(broker: Broker, slots: list[Slot], boot: str) -> None:
    """Hand back what was held by those who had *slots*: they are dead, or they would have them still."""
    claims = [claim for slot in slots for claim in _struck_out(slot, boot)]
    if not claims:
        return
    try:
        count = await broker.take_back(claims)
    except BrokerError as error:
        _log.warning("what a killed process held waits for its locks to end: %s", error)
    except Exception:  # whatever a journal may hold, the consumer must start
        _log.exception("what a killed process held waits for its locks to end")
    else:
        if count:
            _log.info("handed back %d message(s) that a killed process held", count)


def _struck_out(slot: Slot, boot: str) -> list[Claim]:
    """The claims that lie in *slot*, no longer there: once handed back, somebody else may hold the message."""
    try:
        content = slot.read(LARGEST_NBYTES)
        slot.empty()
        entries = read(content, boot=boot, file=slot.file) if content else []
    except (OSError, JournalUnreadableError) as error:
        _log.warning("%s is passed over, and what it names waits for its lock to end: %s", slot.path, error)
        return []
    ahead = boot_clock_ahead()
    return [Claim(entry.queue, entry.token, entry.until - ahead) for entry in entries]
