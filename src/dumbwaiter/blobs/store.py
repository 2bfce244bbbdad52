"""The blob store contract, and the store for a URL.

Who does what: a store does not retry or log (obstore's own clients retry what HTTP says may be retried); whoever calls
decides. Objects are replaced or created whole: a reader sees the old one, the new one or none, never half. Everything
may be called from many tasks at once, and a cancelled call leaves no half-written object.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from urllib.parse import unquote

from dumbwaiter.errors import ConfigError


class BlobStore(ABC):
    """Objects by key. Keys are checked by keys.check_key. Every method raises BlobError when the store fails."""

    url: str

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
    async def list(self, prefix: str) -> list[str]:
        """The keys below the folder *prefix* (``claims/``, or empty for all), sorted."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Remove the object. Removing one that is gone already is no error."""


def open_store(url: str) -> BlobStore:
    """The store at *url*: ``file:relative``, ``file:///absolute``, ``memory:name``, ``s3://``, ``gs://``, ``az://``.

    Stores in memory are shared within this process by their name (also the empty one). Cloud credentials come from the
    environment, as their own tools read them. Raises ConfigError for a URL that names no store; does no other I/O.
    """
    scheme, colon, rest = url.partition(":")
    if colon and scheme == "file":
        from dumbwaiter.blobs.local import LocalBlobStore  # noqa: PLC0415 - each adapter on demand

        return LocalBlobStore(url, _folder_of(url, rest))
    if colon and scheme in {"memory", "s3", "gs", "az"}:
        from dumbwaiter.blobs.objects import ObjectBlobStore  # noqa: PLC0415 - obstore is slow to import

        return ObjectBlobStore(url)
    raise ConfigError(f"no blob store for {url!r}: its scheme must be one of az:, file:, gs:, memory:, s3:")


def _folder_of(url: str, rest: str) -> Path:
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host not in {"", "localhost"} or not path:
            raise ConfigError(f"no blob store for {url!r}: write file:relative/folder or file:///absolute/folder")
        return Path(unquote(slash + path))
    if not rest:
        raise ConfigError(f"no blob store for {url!r}: a folder must follow")
    return Path(rest).absolute()
