"""Azure Service Bus queues: see broker.py, and docs/brokers/servicebus.md."""

from dumbwaiter.brokers.servicebus.broker import ServicebusBroker

__all__ = ["ServicebusBroker"]
