"""A process of its own for the tests: ``blob_process.py VERB URL [ARGUMENT]``. It says what it did, line by line."""

from __future__ import annotations

import asyncio
import itertools
import resource
import sys

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


async def leave(url: str) -> None:
    """Use every verb, and end."""
    store = open_store(url)
    await store.put("a", b"1")
    await store.get("a")
    await store.list("")
    await store.delete("a")


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    asyncio.run({"create": create, "rewrite": rewrite, "overflow": overflow, "leave": leave}[verb](*arguments))
