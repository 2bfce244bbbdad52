"""Apache Pulsar: shared subscriptions, spoken to by its own C++ client."""

from dumbwaiter.brokers.pulsar.broker import PulsarBroker

__all__ = ["PulsarBroker"]
