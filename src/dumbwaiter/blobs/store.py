"""The blob store contract.

Who does what: a store does not retry or log (obstore's own clients retry what HTTP says may be retried); whoever calls
decides. Objects are replaced or created whole: a reader sees the old one, the new one or none, never half. Everything
may be called from many tasks at once, and a cancelled call leaves no half-written object.

What lies below keys.PRIVATE_FOLDER can be read by the store's owner only, where the store knows owners.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Literal

import msgspec

from dumbwaiter.blobs.keys import check_key

CHUNK_NBYTES = 256 * 1024
"""So much of an object is read at a time, unless told otherwise."""
PAGE = 1000
"""So many objects stand on a page of scan()."""


class BlobEntry(msgspec.Struct, frozen=True, gc=False):
    """What a listing says of an object; *modified_at* is in seconds since the Unix epoch, by the store's clock."""

    key: str
    nbytes: int
    modified_at: float


class BlobStore(ABC):
    """Objects by key. Keys are checked by keys.check_key. Every method raises BlobError when the store fails."""

    url: str

    @abstractmethod
    async def check(self) -> None:
        """Look whether the store is there and lets itself be read; nothing is written. For whoever starts to use it.

        Raises BlobError within some seconds, when a service is down or hangs too.
        """

    @abstractmethod
    async def put(self, key: str, data: bytes, *, durable: bool = True) -> None:
        """Write an object, replacing what is there. With *durable* it survives a power cut once this returns."""

    @abstractmethod
    async def create(self, key: str, data: bytes) -> None:
        """Write an object, durably, if there is none; raises BlobExistsError otherwise: the first writer has won.

        When that is raised the winner's object is durable too.
        """

    @abstractmethod
    async def get(self, key: str) -> bytes:
        """The object's bytes. Raises BlobNotFoundError."""

    @abstractmethod
    async def put_stream(self, key: str, chunks: AsyncIterator[bytes], *, durable: bool = True) -> int:
        """put() for an object that comes in *chunks* and may be larger than memory. Returns its number of bytes.

        Nothing is left of it when *chunks* raises or the call is cancelled, unless it was complete by then. Memory is
        bounded, whatever the size of the chunks' sum. *chunks* is not closed: that is for whoever made it.
        """

    @abstractmethod
    def stream(self, key: str, *, chunk_nbytes: int = CHUNK_NBYTES) -> AsyncIterator[bytes]:
        """The object's bytes in chunks of some *chunk_nbytes*, none of them empty: one state of it, also when it is
        replaced meanwhile. Raises BlobNotFoundError at the first step.
        """

    @abstractmethod
    async def exists(self, key: str) -> bool:
        """Whether there is an object. It raises when the store cannot tell."""

    @abstractmethod
    async def size(self, key: str) -> int:
        """The object's number of bytes. Raises BlobNotFoundError."""

    @abstractmethod
    async def version(self, key: str) -> str:
        """A text that is another one once other bytes were written there; the same bytes may change it too, and reading
        never does. Raises BlobNotFoundError.
        """

    @abstractmethod
    async def list(self, prefix: str) -> list[str]:
        """The keys below the folder *prefix* (``claims/``, or empty for all), sorted."""

    @abstractmethod
    def scan(self, prefix: str) -> AsyncIterator[Sequence[BlobEntry]]:
        """What list() finds, with sizes and times, page by page and in no promised order: for folders of any size.

        What comes or goes meanwhile may be met or not.
        """

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Remove the object. Removing one that is gone already is no error."""

    async def copy(self, source: str, target: str) -> None:
        """Write what is under *source* under *target* too, durably. Raises BlobNotFoundError.

        A service does it by itself, whatever the size. What happens to *source* later does not touch *target*.
        """
        await self.put_stream(target, self.stream(source))

    async def sign(self, method: Literal["GET", "PUT"], key: str, *, expires_in: float) -> str | None:  # noqa: ARG002
        """A URL by which anybody can do *method* to the object for *expires_in* seconds; None where no URL leads there.

        Nothing bounds what is put by one. Raises BlobError where the store's credentials cannot sign.
        """
        check_key(key)
        return None

    @abstractmethod
    async def remove_leftovers(self, *, before: float) -> int:
        """Remove what writers that died before *before* (seconds since the Unix epoch) left unfinished. How many.

        A service that removes such things by itself, or by a rule of its bucket, has nothing to do here.
        """
