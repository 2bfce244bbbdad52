"""Asking models through a gateway or straight over the broker, from asynchronous and from ordinary code."""

from dumbwaiter.client.asynchronous import AsyncClient, AsyncHandle
from dumbwaiter.client.blocking import Client, Handle
from dumbwaiter.client.door import Cancellation, PredictionStatus

__all__ = ["AsyncClient", "AsyncHandle", "Cancellation", "Client", "Handle", "PredictionStatus"]
