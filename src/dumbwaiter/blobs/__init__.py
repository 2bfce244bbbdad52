"""Blob stores by URL: claim checks for big bodies, results written once, and who serves which model."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from dumbwaiter.blobs.store import BlobStore
from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

__all__ = ["BlobStore", "open_store", "shown"]


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
    hint = f"; if a folder is meant, write file:{url}" if url and not colon else ""
    schemes = "its scheme must be one of az:, file:, gs:, memory:, s3:"
    raise ConfigError(f"no blob store for {shown(url)!r}: {schemes}{hint}")


def _folder_of(url: str, rest: str) -> Path:
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host not in {"", "localhost"} or not path:
            raise ConfigError(
                f"no blob store for {shown(url)!r}: write file:relative/folder or file:///absolute/folder"
            )
        return Path(unquote(slash + path))
    if not rest:
        raise ConfigError(f"no blob store for {shown(url)!r}: a folder must follow")
    return Path(rest).absolute()
