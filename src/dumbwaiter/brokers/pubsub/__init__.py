"""Google Cloud Pub/Sub with exactly-once subscriptions: see broker.py, and docs/brokers/pubsub.md."""

from dumbwaiter.brokers.pubsub.broker import PubsubBroker

__all__ = ["PubsubBroker"]
