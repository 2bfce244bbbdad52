"""Apache Kafka: see broker.py, and docs/brokers/kafka.md."""

from dumbwaiter.brokers.kafka.broker import KafkaBroker

__all__ = ["KafkaBroker"]
