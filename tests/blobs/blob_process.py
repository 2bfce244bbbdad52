"""A process of its own for the tests: ``blob_process.py VERB URL [ARGUMENT]``. It says what it did, line by line."""

from __future__ import annotations

import asyncio
import itertools
import resource
import sys
from collections.abc import AsyncIterator

from dumbwaiter.blobs import open_store
from dumbwaiter.errors import BlobError, BlobExistsError

NBYTES = 1 << 20


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def create(url: str, owner: str) -> None:
    """Eight writers that all want the same key, on a word from outside."""
    store = open_store(url)

    async def one(place: int) -> None:
        name = f"{owner}-{place}"
        try:
            await store.create("results/contended", name.encode() * 1000)
        except BlobExistsError:
            # What a loser reads here is what it will tell its caller.
            say("lost", name, (await store.get("results/contended"))[: len(name)].decode())
        else:
            say("won", name)

    say("ready")
    sys.stdin.readline()
    await asyncio.gather(*(one(place) for place in range(8)))


async def rewrite(url: str) -> None:
    """Write two objects over and over, each time whole with another byte."""
    store = open_store(url)
    for number in itertools.count():
        data = bytes([number % 256]) * NBYTES
        await store.put("claims/same", data)
        await store.create(f"results/{number}", data)
        say("wrote", number)


async def overflow(url: str) -> None:
    """Write more than the system lets this process write; then something small."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (NBYTES, NBYTES))
    store = open_store(url)
    await store.put("old", b"old")
    for verb in (store.put, store.create):
        for key in ("new", "old"):
            try:
                await verb(key, b"x" * (3 * NBYTES))
            except BlobError as error:
                say(error)
    await store.put("small", b"small")


async def zeros(mebibytes: int) -> AsyncIterator[bytes]:
    for _ in range(mebibytes * 16):
        yield bytes(64 * 1024)


def peak_nbytes() -> int:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def flow(url: str, mebibytes: str) -> None:
    """Write a large object and read it again, in chunks."""
    store = open_store(url)
    await store.put_stream("warm", zeros(2))
    before = peak_nbytes()
    written = await store.put_stream("large", zeros(int(mebibytes)), durable=False)
    read = 0
    async for chunk in store.stream("large"):
        read += len(chunk)
    say(written, read, peak_nbytes() - before)


async def pour(url: str, mebibytes: str) -> None:
    """Write a large object in chunks."""
    store = open_store(url)
    await store.put_stream("warm", zeros(0))
    before = peak_nbytes()
    say(await store.put_stream("large", zeros(int(mebibytes))), peak_nbytes() - before)


async def overflow_stream(url: str) -> None:
    """Stream more than the system lets this process write."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (NBYTES, NBYTES))
    try:
        await open_store(url).put_stream("new", zeros(4))
    except BlobError as error:
        say(error)


async def stall(url: str) -> None:
    """Stream a little, and then nothing for ever."""

    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(4 * NBYTES)
        say("stalls")
        await asyncio.Event().wait()

    await open_store(url).put_stream("half", chunks())


async def leave(url: str) -> None:
    """Use every verb, and end."""
    store = open_store(url)
    await store.put("a", b"1")
    await store.get("a")
    await store.list("")
    await store.delete("a")


VERBS = (create, rewrite, overflow, flow, pour, overflow_stream, stall, leave)

if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    asyncio.run({one.__name__: one for one in VERBS}[verb](*arguments))
