"""Bytes on their way: small chunks gathered into larger ones, since each of them costs a store a step of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator


async def gathered(chunks: AsyncIterator[bytes], nbytes: int) -> AsyncIterator[bytes]:
    """The bytes of *chunks* in chunks of *nbytes* or more, but for the last one; none of them is empty."""
    waiting: list[bytes] = []
    held = 0
    async for chunk in chunks:
        if chunk:
            waiting.append(chunk)
            held += len(chunk)
        if held >= nbytes:
            yield b"".join(waiting)
            waiting, held = [], 0
    if waiting:
        yield b"".join(waiting)
