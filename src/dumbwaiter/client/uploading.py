"""What is uploaded: a file or bytes, of a known size, read piece by piece."""

from __future__ import annotations

import asyncio
import mimetypes
import stat
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.content_types import NPY, sniff_image
from dumbwaiter.errors import BadInputError

if TYPE_CHECKING:
    from os import PathLike

PIECE_NBYTES = 1024 * 1024
_FIRST_BYTES = 64


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """Where a gateway wants the bytes: see docs/rest.md, "Large inputs"."""

    id: str
    url: str
    method: str = "PUT"
    headers: dict[str, str] = {}
    limit: int | None = None

    @property
    def path(self) -> str | None:
        """The route of the gateway itself that takes them, at whatever address it is known here; None for a store."""
        url = self.url.partition("?")[0]
        own = f"v1/uploads/{self.id}"
        return own if url == self.url and url.endswith(f"/{own}") else None


class Source:
    """*nbytes* bytes of *content*, which is a file's path or the bytes themselves. *content_type* None: unknown."""

    def __init__(self, content: Path | memoryview, nbytes: int, content_type: str | None) -> None:
        self.nbytes = nbytes
        self.content_type = content_type
        self._content = content

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The bytes. Raises BadInputError for a file that has other ones by now."""
        if isinstance(self._content, memoryview):
            for start in range(0, self.nbytes, PIECE_NBYTES):
                yield bytes(self._content[start : start + PIECE_NBYTES])
            return
        left = self.nbytes
        try:
            with await asyncio.to_thread(self._content.open, "rb", buffering=0) as file:
                while left and (piece := await asyncio.to_thread(file.read, min(left, PIECE_NBYTES))):
                    left -= len(piece)
                    yield piece
        except OSError as error:
            raise _unreadable(self._content, error) from None
        if left:
            raise BadInputError(f"{self._content} became {left} bytes shorter while it was uploaded; upload it again")


def source_of(content: str | PathLike[str] | bytes | bytearray | memoryview) -> Source:
    """*content*, looked at: a str is the path of a file. Raises BadInputError for what cannot be uploaded."""
    if isinstance(content, (bytes, bytearray, memoryview)):
        view = memoryview(content).cast("B")
        source = Source(view, view.nbytes, sniff_image(bytes(view[:_FIRST_BYTES])))
    else:
        source = _file(Path(content))
    if not source.nbytes:
        raise BadInputError("there is nothing to upload: it is empty")
    return source


def _file(path: Path) -> Source:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for its other end
            raise BadInputError(f"cannot upload {path}: its size must be known before, and it is no regular file")
        with path.open("rb") as file:
            start = file.read(_FIRST_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from None
    guessed = NPY if path.suffix == ".npy" else sniff_image(start) or mimetypes.guess_type(path.name)[0]
    return Source(path, found.st_size, guessed)


def _unreadable(path: Path, error: OSError) -> BadInputError:
    return BadInputError(f"cannot read {path}: {error.strerror}")
