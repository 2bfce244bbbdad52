"""The adapter of NATS JetStream: see broker.py."""

from dumbwaiter.brokers.nats.broker import NatsBroker

__all__ = ["NatsBroker"]
