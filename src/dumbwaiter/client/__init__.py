"""Asking models straight over the broker, from asynchronous and from ordinary code."""

from dumbwaiter.client.asynchronous import AsyncClient, AsyncHandle
from dumbwaiter.client.blocking import Client, Handle

__all__ = ["AsyncClient", "AsyncHandle", "Client", "Handle"]
