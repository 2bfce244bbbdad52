"""Blob stores by URL: claim checks for big bodies, results written once, and who serves which model."""

from dumbwaiter.blobs.store import BlobStore, open_store

__all__ = ["BlobStore", "open_store"]
