"""Requests to URLs that callers name: guarded, bounded, and never to an address within unless the settings say so."""

from dumbwaiter.outbound.client import OutboundClient, Response
from dumbwaiter.outbound.guard import AddressPolicy, Target

__all__ = ["AddressPolicy", "OutboundClient", "Response", "Target"]
