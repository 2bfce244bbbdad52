"""Amazon SQS standard queues: see broker.py, and docs/brokers/sqs.md."""

from dumbwaiter.brokers.sqs.broker import SqsBroker

__all__ = ["SqsBroker"]
